insert into inv.customers values (2,'Bob','Brown','bob@example.org');
update inv.customers set email='new@example.org' where id=2;
insert into inv.types values (20, true, -32768, 2147483647, 9223372036854775807, 4294967295, 1.5, 0.1, 123.4500, 123.45, 123456789012345678901234567890, '$1,234.56',
 'ab', 'vc', 'text"\é☃', '\x00ff10', '{"a": 1,  "b":[1,2]}', '{"b":[1,2],"a":1.10}', '<a>x</a>', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
 '2024-02-29', '2024-02-29 12:34:56.123456', '2024-02-29 12:34:56', '2024-02-29 12:34:56.789', '2024-02-29 12:34:56.120000+02', '2024-02-29 12:34:56.120+02', '12:34:56.123456','12:34:56.789','12:34:56.12+02','1 year 2 mons 3 days 04:05:06.789',
 B'1', B'10000001', B'100000000001', '192.168.0.1/24','192.168.0.0/24','08:00:2b:01:02:03','08:00:2b:01:02:03:04:05',
 '''cat'':3 ''fat'':2', '[1,5)','[1,5]','(1.5,2.5)','[2024-01-01,2024-01-02)','[2024-01-01 00:00+00,2024-01-02 00:00+00)','[2024-01-01,2024-01-03]',
 '(1,2)','happy', 5, 1.5, 'k1=>v1,k2=>NULL','CiText','a.b.c','978-0-393-04002-9',
 '{1,NULL,3}','{a,NULL,"c,d"}','{1.50,2}','{1.5,2}','{2024-01-01 00:00:00.5}','{2024-01-01 00:00:00.5}','{2024-01-01 00:00:00+00}','{2024-01-01}','{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}',array['{"a":1}']::jsonb[],array['\x00ff']::bytea[],'{sad,happy}','{t,f}','{ab}','{12:00:00}','{12:00:00+02}',array['a=>1']::hstore[],'{1.2.3.4}',
 '{1.5}','{5}','{1.5}','{3}','{ab}','{7}',array['{"a":1}']::json[],'{192.168.0.0/24}','{08:00:2b:01:02:03}','{AbC}','{a.b}','{"[1,5)"}');
insert into inv.required values (1,true,1,2,3,1.5,2.5,3.5,4.5,5.5,'c','t','\x01','{}','<a/>','a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11','2024-02-29','2024-02-29 12:00','2024-02-29 12:00','2024-02-29 12:00+00','12:00','12:00','12:00+00','1 day',B'1',B'100000000001','1.2.3.4','''a'':1','[1,2)','(1,2)','sad','a=>1','ct','a.b','{1}','{t}','{1.5}');
delete from inv.required where id=1;
insert into inv.defaults(id,ug,dn,tsn,tstzn) values (1,'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a22','2026-01-01','2026-01-01 12:00','2026-01-01 12:00+00');
begin;
insert into inv.toast values (1, repeat('x',2500), decode(repeat('ab',2500),'hex'), to_jsonb(repeat('j',2500)), array(select generate_series(1,600)), array(select 't'||g from generate_series(1,300) g), hstore('k', repeat('h',2500)), array(select g::numeric from generate_series(1,300) g), 'first');
commit;
update inv.toast set note='second' where id=1;
update inv.customers set id=20 where id=2;
update inv.toast set id=10, note='moved' where id=1;
update inv.full_ set b=2 where id=1;
update inv.comppk set v='uno' where a='x' and b=1;
delete from inv.comppk where b=2;
update inv.comppk set a='y' where b=1;
insert into inv.nopk values (1,'keyless');
begin;
insert into inv.full_ values (2,'two',2,'2024-01-01 00:00+00'),(3,'three',null,null);
insert into inv.customers values (4,'Dora','D','d@example.org');
delete from inv.full_ where id=2;
commit;
select pg_logical_emit_message(true,'foo','hello');
delete from inv.customers where id=1;
insert into inv.comppk values (9,'z','gone');
truncate inv.comppk;
insert into inv.comppk values (10,'z','after');
delete from inv.defaults;
update inv.full_ set a='four' where id=3;
update inv.toast set note='third', big='short', biga=null where id=10;
insert into inv.full_ values (4,'__debezium_unavailable_value',null,null);
