use bson::{Binary, Bson, spec::BinarySubtype};
use walferry_etl::analytics::RuleFile;

use super::*;

const VIEW: &str = r#"{"title": "T", "question": "Q?", "kind": "view", "input": "sales", "pipeline": [
    {"$lookup": {"from": "lines", "localField": "_id", "foreignField": "sale", "as": "lines"}},
    {"$lookup": {"from": "goods", "localField": "lines.good", "foreignField": "_id", "as": "goods"}}]}"#;
const BIG: &str = r#"{"title": "T", "question": "Q?", "kind": "alerts", "input": "v_sales", "per": "_id", "output": "alerts",
    "pipeline": [{"$replaceWith": {"_id": {"rule": "f01_big", "ref": "$_id"}, "sale": "$_id"}}]}"#;

/// Alerts per sale, over a view of sales, their lines and what was sold.
fn big() -> Subject {
    let file = |name: &str, text: &str| RuleFile {
        path: format!("{name}.json"),
        text: text.to_owned(),
    };
    let rules = RuleSet::read(&[file("v_sales", VIEW), file("f01_big", BIG)]).unwrap();
    Subject::all(&rules).remove(0)
}

/// The same after a refresh in which its whole answer took so long.
fn refreshed(took: Duration) -> Subject {
    let mut subject = big();
    assert!(subject.wants_refresh(&BTreeSet::new()));
    refresh(&mut subject, took);
    subject
}

fn refresh(subject: &mut Subject, took: Duration) {
    subject.share = Share::Due;
    let job = subject.start(None, true);
    subject.kept(&job.what, took);
}

fn wants_refresh(subject: &Subject) -> bool {
    subject.wants_refresh(&BTreeSet::new())
}

fn standing(of: &[(&str, u8)]) -> BTreeMap<String, Standing> {
    let stands = of.iter().map(|(name, uuid)| {
        let uuid = Binary {
            subtype: BinarySubtype::Uuid,
            bytes: vec![*uuid; 16],
        };
        ((*name).to_owned(), Standing::Collection(Some(uuid)))
    });
    stands.collect()
}

fn touch(subject: &mut Subject, values: std::ops::Range<i32>, since: SystemTime) {
    let values = values.map(Bson::Int32).collect();
    subject.note(&FoundValues::Values(values), Some(since));
}

/// How many values its next quick turn is about, for which there are 150 ms and which takes so long.
fn part(subject: &mut Subject, took: Duration) -> usize {
    let job = quick(subject);
    let count = values(&job.what);
    subject.kept(&job.what, took);
    count
}

fn quick(subject: &mut Subject) -> Job {
    let share = Duration::from_millis(150);
    subject.start_quick(None, share).unwrap()
}

fn values(what: &What) -> usize {
    match what {
        What::Part { values, .. } | What::Whole { values, .. } => values.len(),
    }
}

const LONG: Duration = Duration::from_mins(1);

#[test]
fn a_refresh_asks_for_a_whole_answer_only_when_something_was_not_followed() {
    let mut subject = refreshed(LONG);
    let watched: BTreeSet<_> = subject.watched().collect();
    assert_eq!(watched, BTreeSet::from(["goods", "lines", "sales"]));
    assert!(!wants_refresh(&subject));
    for followed in ["sales", "lines", "others"] {
        subject.note_change(followed);
        assert!(!wants_refresh(&subject), "{followed}");
    }
    subject.note_change("goods");
    assert!(wants_refresh(&subject));
    // Until then what was touched is asked about.
    touch(&mut subject, 0..1, SystemTime::now());
    assert!(subject.wants_part_in(Pace::Quick));
    refresh(&mut subject, LONG);
    assert!(!wants_refresh(&subject));
    subject.renew();
    assert!(wants_refresh(&subject));
    refresh(&mut subject, LONG);
    let written = BTreeSet::from(["goods".to_owned()]);
    assert!(subject.wants_refresh(&written));
}

#[test]
fn a_collection_that_was_made_anew_is_asked_about_with_the_next_refresh() {
    let mut subject = refreshed(LONG);
    let old = [("sales", 1), ("lines", 1), ("goods", 1), ("others", 1)];
    subject.note_standing(&standing(&old));
    refresh(&mut subject, LONG);
    let mut others = old;
    others[3].1 = 2;
    subject.note_standing(&standing(&others));
    assert!(!wants_refresh(&subject), "of no concern");
    let mut new = old;
    new[1].1 = 2;
    subject.note_standing(&standing(&new));
    assert!(wants_refresh(&subject));
    // Its own answer came to be: by itself. Then somebody dropped it.
    refresh(&mut subject, LONG);
    let kept: Vec<_> = new.into_iter().chain([("alerts", 1)]).collect();
    subject.note_standing(&standing(&kept));
    assert!(!wants_refresh(&subject));
    subject.note_standing(&standing(&new));
    assert!(wants_refresh(&subject));
}

#[test]
fn a_whole_answer_comes_again_after_a_thousand_times_as_long_as_it_took() {
    assert!(wants_refresh(&refreshed(Duration::ZERO)));
    assert!(!wants_refresh(&refreshed(LONG)));
}

#[test]
fn what_failed_in_a_refresh_wants_the_next_one_and_its_values_wait() {
    let mut subject = refreshed(LONG);
    subject.note_change("goods");
    touch(&mut subject, 0..2, SystemTime::UNIX_EPOCH);
    subject.share = Share::Due;
    let job = subject.start(None, true);
    assert!(!wants_refresh(&subject));
    assert_eq!(subject.waiting_since(), Some(SystemTime::UNIX_EPOCH));
    subject.put_back(job.what, LONG, Need::Nothing);
    assert!(wants_refresh(&subject));
    assert_eq!(subject.waiting_since(), Some(SystemTime::UNIX_EPOCH));
    assert_eq!(part(&mut subject, LONG), 2);
}

#[test]
fn a_turn_of_alerts_is_about_as_many_values_as_there_is_time_for_the_oldest_first() {
    let mut subject = refreshed(LONG);
    let since = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    touch(&mut subject, 0..160, since(1));
    touch(&mut subject, 20..3_000, since(2));
    let took = Duration::from_millis;
    // Nobody knows what they cost: a millisecond.
    assert_eq!(subject.cost(), Duration::from_secs(3));
    assert_eq!(part(&mut subject, took(150)), 150);
    assert_eq!(subject.waiting_since(), Some(since(1)));
    assert_eq!(part(&mut subject, took(15)), 150);
    assert_eq!(subject.waiting_since(), Some(since(2)));
    // It took a tenth of that, and half of the difference is believed.
    assert_eq!(part(&mut subject, took(0)), 272);
    assert!(subject.wants_part_in(Pace::Quick));
    // However little time there is, a question has its own cost.
    let job = subject.start_quick(None, Duration::ZERO).unwrap();
    assert_eq!(values(&job.what), FEW);
}

#[test]
fn what_was_given_up_is_asked_again_about_less_each_time_and_before_what_came_meanwhile() {
    let mut subject = refreshed(LONG);
    touch(&mut subject, 0..1_000, SystemTime::UNIX_EPOCH);
    // A question about them all took longer than it may, though less than the one before.
    part(&mut subject, Duration::from_secs(9));
    subject.cost = Some(Cost {
        took: Duration::from_secs(9),
        value: Duration::from_micros(150),
    });
    for expected in [850, 250, 62, 32, 32] {
        let job = quick(&mut subject);
        assert_eq!(values(&job.what), expected);
        touch(&mut subject, 5_000..5_001, SystemTime::now());
        subject.gave_up(job.what, LONGEST_QUICK);
        assert_eq!(subject.waiting_since(), Some(SystemTime::UNIX_EPOCH));
    }
    assert_eq!(subject.pace(), Pace::Slow);
}

#[test]
fn a_rule_that_takes_long_for_a_value_has_its_turns_beside_the_others() {
    let mut subject = refreshed(LONG);
    touch(&mut subject, 0..5, SystemTime::now());
    let job = quick(&mut subject);
    subject.gave_up(job.what, LONGEST_QUICK);
    assert_eq!(subject.pace(), Pace::Slow);
    assert!(!subject.wants_part_in(Pace::Slow), "it rests");
    // All of them then; and half of what it takes is believed.
    let slow = |subject: &mut Subject| {
        touch(subject, 0..500, SystemTime::now());
        subject.part_not_before = Instant::now();
        let job = subject.start(None, false);
        assert_eq!(values(&job.what), 500);
        subject.kept(&job.what, Duration::from_millis(50));
        subject.pace()
    };
    let paces: Vec<_> = (0..3).map(|_| slow(&mut subject)).collect();
    assert_eq!(paces, [Pace::Slow, Pace::Slow, Pace::Quick]);
}

#[test]
fn alerts_are_late_while_they_could_be_asked() {
    let mut subject = refreshed(LONG);
    touch(&mut subject, 0..5, SystemTime::now());
    assert!(!subject.is_late());
    touch(&mut subject, 5..6, SystemTime::UNIX_EPOCH);
    part(&mut subject, Duration::ZERO);
    touch(&mut subject, 5..6, SystemTime::UNIX_EPOCH);
    assert!(subject.is_late());
    subject.retry_later();
    assert!(!subject.is_late(), "it waits for itself");
}

#[test]
fn a_turn_that_broke_waits_for_the_refresh_and_says_since_when() {
    let mut subject = refreshed(LONG);
    touch(&mut subject, 0..5, SystemTime::UNIX_EPOCH);
    quick(&mut subject);
    subject.broke();
    assert!(wants_refresh(&subject));
    assert_eq!(subject.waiting_since(), Some(SystemTime::UNIX_EPOCH));
}
