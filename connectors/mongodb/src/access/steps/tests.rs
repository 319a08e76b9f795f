use super::*;

const US: &str = "our_slot";
const DATABASE: &str = "shop";

fn query(store: i32) -> Query {
    Query {
        collection: "sales".into(),
        pipeline: vec![doc! { "$match": { "store_id": store } }],
    }
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

/// A role that reads a view of each of some stores.
fn grants(stores: &[i32]) -> Grants {
    let view = |store: &i32| format!("clerk.{store}");
    Grants {
        views: stores.iter().map(|it| (view(it), query(*it))).collect(),
        roles: [("clerk".into(), stores.iter().map(view).collect())].into(),
    }
}

/// All of it there, as it should be.
fn done(grants: &Grants) -> Found {
    let views = grants.views.iter();
    let standing = views.map(|(view, query)| (view.clone(), Standing::View(query.clone())));
    let role = |(role, views): (&String, &BTreeSet<String>)| {
        let privileges = views.iter().map(|it| Privilege::find(DATABASE, it));
        let found = FoundRole {
            privileges: privileges.collect(),
            inherits: Vec::new(),
        };
        (role.clone(), found)
    };
    let made_views = grants.views.keys().cloned().map(Made::View);
    let made = grants.roles.keys().cloned().map(Made::Role);
    Found {
        database: DATABASE.into(),
        standing: standing.collect(),
        roles: grants.roles.iter().map(role).collect(),
        made: made.chain(made_views).map(|it| (it, US.into())).collect(),
        is_open: false,
    }
}

fn steps(wanted: &Grants, found: &Found) -> Vec<Step> {
    wanted.steps(found, US).unwrap()
}

#[test]
fn what_is_as_it_should_be_takes_no_step() {
    let wanted = grants(&[1, 2]);
    assert_eq!(steps(&wanted, &done(&wanted)), []);
    assert_eq!(steps(&Grants::default(), &Found::default()), []);
}

#[test]
fn views_come_before_the_roles_that_read_them() {
    let wanted = grants(&[1]);
    let view = "clerk.1".to_owned();
    let expected = [
        Step::MakeView {
            view: view.clone(),
            query: query(1),
        },
        Step::MakeRole {
            role: "clerk".into(),
            views: [view].into(),
        },
    ];
    assert_eq!(steps(&wanted, &Found::default()), expected);
}

#[test]
fn a_role_sees_less_before_its_view_goes_and_more_after_one_has_come() {
    let (before, after) = (grants(&[1]), grants(&[2]));
    let excess = vec![Privilege::find(DATABASE, "clerk.1")];
    let expected = [
        Step::Narrow {
            role: "clerk".into(),
            excess,
            inherits: Vec::new(),
        },
        Step::DropView {
            view: "clerk.1".into(),
        },
        Step::MakeView {
            view: "clerk.2".into(),
            query: query(2),
        },
        Step::Widen {
            role: "clerk".into(),
            views: set(&["clerk.2"]),
        },
    ];
    assert_eq!(steps(&after, &done(&before)), expected);
}

#[test]
fn roles_go_before_their_views() {
    let expected = [
        Step::DropRole {
            role: "clerk".into(),
        },
        Step::DropView {
            view: "clerk.1".into(),
        },
    ];
    let found = done(&grants(&[1]));
    assert_eq!(steps(&Grants::default(), &found), expected);
}

#[test]
fn what_a_killed_process_began_is_ended() {
    let wanted = grants(&[1]);
    let mut begun = done(&wanted);
    begun.roles.clear();
    let role = Step::MakeRole {
        role: "clerk".into(),
        views: set(&["clerk.1"]),
    };
    assert_eq!(steps(&wanted, &begun), std::slice::from_ref(&role));
    begun.standing.clear();
    assert_eq!(steps(&wanted, &begun).len(), 2);
    let forgotten = [Made::Role("clerk".into()), Made::View("clerk.1".into())];
    let forgotten = forgotten.map(|made| Step::Forget { made });
    assert_eq!(steps(&Grants::default(), &begun), forgotten);
}

#[test]
fn what_somebody_gave_a_role_or_made_of_a_view_is_taken_back() {
    let wanted = grants(&[1]);
    let mut found = done(&wanted);
    let other = query(9);
    found
        .standing
        .insert("clerk.1".into(), Standing::View(other));
    let whole = Privilege::find(DATABASE, "");
    let elsewhere = Privilege::find("other", "clerk.1");
    let clerk = found.roles.get_mut("clerk").unwrap();
    clerk.privileges[0].actions.insert("remove".into());
    clerk.privileges.extend([whole.clone(), elsewhere.clone()]);
    clerk.inherits.push(doc! { "role": "read", "db": DATABASE });
    let [
        Step::Narrow {
            excess, inherits, ..
        },
        Step::ChangeView { query: again, .. },
    ] = &steps(&wanted, &found)[..]
    else {
        panic!("{:?}", steps(&wanted, &found));
    };
    assert_eq!(excess[0].actions, set(&["remove"]));
    assert_eq!(excess[1..], [whole, elsewhere]);
    assert_eq!((inherits.len(), again), (1, &query(1)));
}

#[test]
fn what_others_made_is_left_alone_and_named() {
    let wanted = grants(&[1, 2]);
    let mut found = done(&wanted);
    found.made.remove(&Made::Role("clerk".into()));
    found
        .made
        .insert(Made::View("clerk.1".into()), "other_slot".into());
    found
        .standing
        .insert("clerk.2".into(), Standing::Collection(None));
    let Err(AccessError::Taken(taken)) = wanted.steps(&found, US) else {
        panic!("names of others were used");
    };
    let of = |made, by: Option<&str>| Taken {
        made,
        by: by.map(str::to_owned),
    };
    let expected = [
        of(Made::Role("clerk".into()), None),
        of(Made::View("clerk.1".into()), Some("other_slot")),
        of(Made::View("clerk.2".into()), None),
    ];
    assert_eq!(taken, expected);
    let dropped = steps(&Grants::default(), &found);
    let forgotten = Made::View("clerk.2".into());
    assert_eq!(dropped, [Step::Forget { made: forgotten }]);
}
