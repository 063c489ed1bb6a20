//! What the ledger promises, on a good day.

use serde_json::json;

use super::tests_sample::{broken, conduct, fail, held, ledger, new_run, path};
use super::{Closed, FailureState, Ledger, LedgerError, RunState};
use crate::clock;
use crate::report::Ending;

/// Every row of every table that is made from events.
fn tables(ledger: &Ledger) -> Vec<String> {
    let connection = ledger.connection();
    let mut all = Vec::new();
    for table in ["runs", "failures", "occurrences", "words"] {
        let mut query = connection.prepare(&format!("SELECT rowid, * FROM {table} ORDER BY rowid")).unwrap();
        let columns = query.column_count();
        let mut rows = query.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let row: Vec<_> = (0..columns).map(|n| row.get::<_, rusqlite::types::Value>(n).unwrap()).collect();
            all.push(format!("{table} {row:?}"));
        }
    }
    all
}

/// A run that follows a failure up; the closure spoils its report.
fn follow_up(ledger: &Ledger, run: &str, failure: &str, spoil: impl FnOnce(&mut crate::report::Report)) -> Closed {
    let mut new = new_run(run, "slow-inventory-again");
    new.follow_up_of = Some(failure.to_owned());
    let mut report = held(run, "slow-inventory-again");
    spoil(&mut report);
    conduct(ledger, &new, &report)
}

#[test]
fn a_run_is_there_from_its_beginning_and_its_report_after_its_end() {
    let (_folder, ledger) = ledger();
    let open = ledger.open_run(&new_run("r-1", "slow-inventory")).unwrap();
    assert_eq!(ledger.run("r-1").unwrap().state, RunState::Open);
    assert!(matches!(ledger.report("r-1"), Err(LedgerError::NoReport { .. })));
    let report = held("r-1", "slow-inventory");
    let closed = ledger.close_run(open, &report).unwrap();
    assert!(closed.failure.is_none() && !closed.new);
    let row = ledger.run("r-1").unwrap();
    assert_eq!((row.state, row.ending, row.seed.0), (RunState::Closed, Some(Ending::Held), u64::MAX));
    assert_eq!(json!(ledger.report("latest").unwrap()), json!(report));
}

#[test]
fn a_report_stays_as_it_is() {
    let (_folder, ledger) = ledger();
    fail(&ledger, "r-1", "slow-inventory");
    for again in [ledger.reopen("r-1").map(drop), ledger.open_run(&new_run("r-1", "slow-inventory")).map(drop)] {
        assert!(matches!(again, Err(LedgerError::Refused(_))), "{again:?}");
    }
    let open = ledger.open_run(&new_run("r-2", "slow-inventory")).unwrap();
    let wrong = ledger.close_run(open, &held("r-1", "slow-inventory"));
    assert!(matches!(wrong, Err(LedgerError::Refused(_))), "{wrong:?}");
}

#[test]
fn a_run_is_found_by_a_part_of_its_id_that_is_its_own() {
    let (_folder, ledger) = ledger();
    for id in ["r-20261121-230341-k7m2", "r-20261121-230342-abcd"] {
        conduct(&ledger, &new_run(id, "slow-inventory"), &held(id, "slow-inventory"));
    }
    for asked in ["latest", "abcd", "r-20261121-230342", "r-20261121-230342-abcd"] {
        assert_eq!(ledger.run(asked).unwrap().id, "r-20261121-230342-abcd", "{asked}");
    }
    let unclear = ledger.run("r-2026").unwrap_err();
    assert_eq!(
        unclear.to_string(),
        "r-2026 may be any of r-20261121-230342-abcd or r-20261121-230341-k7m2: write more of it"
    );
    let unknown = ledger.run("r-20261121-230341-k7mm").unwrap_err().to_string();
    assert!(unknown.contains("did you mean r-20261121-230341-k7m2 or"), "{unknown}");
    for nobody in ["", "%", "_", "bcd", "'"] {
        assert!(matches!(ledger.run(nobody), Err(LedgerError::UnknownRun { .. })), "{nobody}");
    }
}

#[test]
fn the_order_of_runs_is_that_of_writing_whatever_the_clock_says() {
    let (_folder, ledger) = ledger();
    clock::follow_tokio("2026-11-22T12:00:00Z".parse().unwrap());
    conduct(&ledger, &new_run("r-9", "slow-inventory"), &held("r-9", "slow-inventory"));
    clock::follow_tokio("2020-01-01T00:00:00Z".parse().unwrap());
    conduct(&ledger, &new_run("r-1", "slow-inventory"), &held("r-1", "slow-inventory"));
    assert_eq!(ledger.run("latest").unwrap().id, "r-1");
    assert_eq!(ledger.runs(1).unwrap()[0].id, "r-1");
    assert_eq!(ledger.audit().unwrap().broken, None);
    let events = ledger.events("r-1").unwrap();
    assert!(events.iter().all(|event| event.at < "2021-01-01T00:00:00Z".parse().unwrap()), "{events:?}");
}

#[test]
fn the_same_failure_again_is_an_occurrence() {
    let (_folder, ledger) = ledger();
    let first = fail(&ledger, "r-1", "slow-inventory");
    let again = fail(&ledger, "r-2", "slow-inventory");
    let other = fail(&ledger, "r-3", "slow-payment");
    assert!(first.new && !again.new && other.new);
    let failure = again.failure.unwrap();
    assert_eq!(failure.id, first.failure.unwrap().id);
    assert_eq!((failure.occurrences, failure.first_run.as_str(), failure.last_run.as_str()), (2, "r-1", "r-2"));
    assert_eq!((failure.state, failure.score), (FailureState::Failed, Some(50)));
    assert_eq!(ledger.failures().unwrap().len(), 2);
    assert_eq!(ledger.report("r-2").unwrap().failure, Some(failure.id));
}

#[test]
fn a_failure_id_that_is_taken_by_another_failure_grows() {
    let (_folder, ledger) = ledger();
    let taken = super::fingerprint(&broken("r-2", "slow-payment"), &["latency".to_owned()]).id(4);
    let first = fail(&ledger, "r-1", "slow-inventory").failure.unwrap();
    ledger
        .connection()
        .execute_batch(&format!(
            "PRAGMA foreign_keys = OFF; UPDATE failures SET id = '{taken}'; UPDATE occurrences SET failure = '{taken}'"
        ))
        .unwrap();
    assert_ne!(first.id, taken);
    let second = fail(&ledger, "r-2", "slow-payment").failure.unwrap();
    assert!(second.id.len() == 7 && second.id.starts_with(&taken), "{} {taken}", second.id);
    assert_eq!(ledger.failure(&second.id).unwrap().occurrences, 1);
}

#[test]
fn an_unknown_failure_comes_with_those_that_were_meant() {
    let (_folder, ledger) = ledger();
    assert_eq!(
        ledger.failure("F-7k2m").unwrap_err().to_string(),
        "failure F-7k2m is not in the ledger; it has none yet"
    );
    let id = fail(&ledger, "r-1", "slow-inventory").failure.unwrap().id;
    let error = ledger.failure("F-7k2m").unwrap_err().to_string();
    assert_eq!(error, format!("failure F-7k2m is not in the ledger; did you mean {id}?"));
    assert_eq!(ledger.failure(&id.to_uppercase()).unwrap().id, id);
}

#[test]
fn similar_failures_are_of_the_experiment_or_of_the_fault_at_that_place() {
    let (_folder, ledger) = ledger();
    let same = fail(&ledger, "r-1", "slow-inventory").failure.unwrap().id;
    let place = fail(&ledger, "r-2", "slow-payment").failure.unwrap().id;
    let ids = |experiment, kind, at| {
        ledger.similar(experiment, kind, at).unwrap().into_iter().map(|failure| failure.id).collect::<Vec<_>>()
    };
    assert_eq!(ids("slow-inventory", "latency", "inventory"), [same.clone(), place]);
    assert_eq!(ids("slow-inventory", "drop", "payment"), [same]);
    assert_eq!(ids("another", "latency", "payment"), [""; 0]);
    assert_eq!(ids("another", "lat", "inventory"), [""; 0]);
}

#[test]
fn only_a_follow_up_that_held_with_enough_evidence_closes_a_failure() {
    let (_folder, ledger) = ledger();
    let id = fail(&ledger, "r-0", "slow-inventory").failure.unwrap().id;
    assert!(ledger.move_failure(&id, FailureState::Iterated, "ann").is_err());
    type Spoil = fn(&mut crate::report::Report);
    let spoils: [(Spoil, &str); 4] = [
        (|r| r.verdict.ending = Ending::Inconclusive, "the follow-up was inconclusive"),
        (|r| r.verdict.bounds[0].log_e_held = 2.9, "the follow-up held without enough evidence"),
        (|r| r.verdict.bounds[0].indicator = "x".to_owned(), "the follow-up did not look at `orders are quick`"),
        (|r| r.fidelity.exposed_units = 29, "only 29 units of the follow-up met the fault, and 30 are needed"),
    ];
    for (n, (spoil, why)) in spoils.into_iter().enumerate() {
        let outcome = follow_up(&ledger, &format!("r-a{n}"), &id, spoil).follow_up.unwrap();
        assert_eq!((outcome.closed, outcome.why.as_str()), (false, why));
        assert_eq!(ledger.failure(&id).unwrap().state, FailureState::Testing, "{why}");
    }
    let careless = id.to_lowercase();
    let outcome = follow_up(&ledger, "r-b", &careless, |_| {}).follow_up.unwrap();
    assert!(outcome.closed, "{outcome:?}");
    let failure = ledger.failure(&id).unwrap();
    assert_eq!((failure.state, failure.closed_by.as_deref()), (FailureState::Iterated, Some("r-b")));
    assert!(failure.closed_at.is_some());
    assert!(ledger.move_failure(&id, FailureState::Failed, "ann").is_err());
}

#[test]
fn a_follow_up_that_breaks_something_else_proves_nothing() {
    let (_folder, ledger) = ledger();
    let id = fail(&ledger, "r-0", "slow-inventory").failure.unwrap().id;
    for (run, at, kind) in [("r-1", "payment", "latency"), ("r-2", "inventory", "drop")] {
        let mut new = new_run(run, "slow-inventory");
        (new.at, new.fault_kinds, new.follow_up_of) = (at.to_owned(), vec![kind.to_owned()], Some(id.clone()));
        let outcome = conduct(&ledger, &new, &held(run, "slow-inventory")).follow_up.unwrap();
        assert!(!outcome.closed, "{outcome:?}");
    }
    let mut new = new_run("r-3", "slow-inventory");
    new.follow_up_of = Some("F-zzzz".to_owned());
    let outcome = conduct(&ledger, &new, &held("r-3", "slow-inventory")).follow_up.unwrap();
    assert_eq!(outcome.why, "it is not in this ledger");
}

#[test]
fn a_closed_failure_that_is_seen_again_is_open_again() {
    let (_folder, ledger) = ledger();
    let id = fail(&ledger, "r-0", "slow-inventory").failure.unwrap().id;
    assert!(follow_up(&ledger, "r-1", &id, |_| {}).follow_up.unwrap().closed);
    let events = ledger.events(&id).unwrap().len();
    let twice = follow_up(&ledger, "r-1b", &id, |_| {}).follow_up.unwrap();
    assert_eq!((twice.closed, &*twice.why), (true, "it was closed before, and its follow-up held again"));
    let unsure = follow_up(&ledger, "r-1c", &id, |r| r.verdict.ending = Ending::Inconclusive).follow_up.unwrap();
    assert_eq!((unsure.closed, &*unsure.why), (true, "it was closed before; this time the follow-up was inconclusive"));
    assert_eq!(ledger.events(&id).unwrap().len(), events, "it is closed once");
    let again = follow_up(&ledger, "r-2", &id, |report| *report = broken("r-2", "slow-inventory-again"));
    assert!(!again.new, "the follow-up's name is another, its failure is not");
    let failure = again.failure.unwrap();
    assert_eq!((failure.id, failure.state, failure.came_back), (id, FailureState::Failed, 1));
    assert_eq!((failure.closed_at, failure.closed_by), (None, None));
}

#[test]
fn people_move_a_failure_along_the_board() {
    let (_folder, ledger) = ledger();
    let id = fail(&ledger, "r-0", "slow-inventory").failure.unwrap().id;
    for state in [FailureState::Hypothesis, FailureState::Testing, FailureState::Analysed, FailureState::Hypothesis] {
        assert_eq!(ledger.move_failure(&id, state, "ann").unwrap().state, state);
    }
}

#[test]
fn runs_are_found_by_words_and_nothing_is_syntax() {
    let (_folder, ledger) = ledger();
    fail(&ledger, "r-1", "slow-inventory");
    let mut other = new_run("r-2", "café");
    other.title = "Payments retry".to_owned();
    conduct(&ledger, &other, &held("r-2", "café"));
    let found = |words| ledger.search(words).unwrap().into_iter().map(|run| run.id).collect::<Vec<_>>();
    for (words, expected) in [
        ("hang", vec!["r-1"]),
        ("WAITED whole", vec!["r-1"]),
        ("slow-inventory", vec!["r-1"]),
        ("pay", vec!["r-2"]),
        ("cafe", vec!["r-2"]),
        ("every bound", vec!["r-2", "r-1"]),
        ("hang retry", vec![]),
        ("title", vec![]),
    ] {
        let mut found = found(words);
        found.sort_by(|a, b| b.cmp(a));
        assert_eq!(found, expected, "{words}");
    }
    for words in ["", "\"", "NEAR(", "a AND", "* ^ -", "title:", "'; DROP TABLE runs", "\0", "{a b}:", "é\"*"] {
        found(words);
    }
}

#[test]
fn notes_about_a_run_are_kept_and_cannot_pretend_to_be_ours() {
    let (_folder, ledger) = ledger();
    let _open = ledger.open_run(&new_run("r-1", "slow-inventory")).unwrap();
    ledger.note_run_event("r-1", "guard_rang", json!({ "guard": "error_rate" })).unwrap();
    let events = ledger.events("r-1").unwrap();
    assert_eq!(events.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), ["run_opened", "guard_rang"]);
    assert_eq!(events[1].content, json!({ "guard": "error_rate" }));
    assert!(matches!(ledger.note_run_event("r-1", "run_closed", json!({})), Err(LedgerError::Refused(_))));
    assert!(matches!(ledger.note_run_event("r-2", "note", json!({})), Err(LedgerError::UnknownRun { .. })));
}

#[test]
fn tables_made_again_from_events_are_the_same() {
    let (folder, ledger) = ledger();
    let id = fail(&ledger, "r-1", "slow-inventory").failure.unwrap().id;
    fail(&ledger, "r-2", "slow-inventory");
    fail(&ledger, "r-3", "slow-payment");
    ledger.move_failure(&id, FailureState::Analysed, "ann").unwrap();
    follow_up(&ledger, "r-4", &id, |_| {});
    fail(&ledger, "r-5", "slow-inventory");
    drop(ledger.open_run(&new_run("r-6", "slow-inventory")).unwrap());
    Ledger::open(&path(folder.path())).unwrap();
    let before = tables(&ledger);
    assert!(before.len() > 15, "{before:?}");
    ledger.rebuild().unwrap();
    assert_eq!(tables(&ledger), before);
}

#[test]
fn the_chain_shows_what_was_changed_behind_its_back() {
    let changes = [
        ("UPDATE events SET content = '{}' WHERE seq = 2", 2, "its content was changed"),
        (
            "UPDATE events SET at = '2020-01-01T00:00:00Z' WHERE seq = 3",
            3,
            "its time, kind, subject or hash was changed",
        ),
        ("UPDATE events SET subject = 'r-9' WHERE seq = 1", 1, "its time, kind, subject or hash was changed"),
        ("DELETE FROM events WHERE seq = 2", 3, "event 2 is missing before it"),
        ("UPDATE events SET hash = 'x' WHERE seq = 2", 2, "its time, kind, subject or hash was changed"),
    ];
    for (change, seq, why) in changes {
        let (_folder, ledger) = ledger();
        fail(&ledger, "r-1", "slow-inventory");
        let sound = ledger.audit().unwrap();
        assert_eq!((sound.events, sound.broken), (3, None));
        let last = ledger.events(&ledger.failures().unwrap()[0].id).unwrap().pop().unwrap();
        assert_eq!(sound.head, Some(last.hash));
        let connection = ledger.connection();
        assert!(connection.execute(change, []).is_err(), "a trigger refuses: {change}");
        connection
            .execute_batch("PRAGMA foreign_keys = OFF; DROP TRIGGER events_stay; DROP TRIGGER events_are_not_edited")
            .unwrap();
        connection.execute(change, []).unwrap();
        drop(connection);
        let broken = ledger.audit().unwrap().broken.unwrap();
        assert_eq!((broken.seq, broken.why.as_str()), (seq, why), "{change}");
    }
}

#[test]
fn events_are_only_added_at_the_end_of_the_chain() {
    let (_folder, ledger) = ledger();
    fail(&ledger, "r-1", "slow-inventory");
    let connection = ledger.connection();
    for insert in ["INSERT", "INSERT OR REPLACE"] {
        for (seq, prev) in [("2", "(SELECT prev FROM events WHERE seq = 2)"), ("9", "'x'"), ("4", "'x'")] {
            let sql = format!(
                "{insert} INTO events SELECT {seq}, at, kind, subject, '{{}}', 'x', {prev}, 'x' FROM events WHERE seq = 1"
            );
            let error = connection.execute(&sql, []).unwrap_err().to_string();
            assert!(error.contains("at the end of the chain"), "{sql}: {error}");
        }
    }
}

#[test]
fn redacted_words_are_nowhere_and_the_audit_still_passes() {
    let (folder, ledger) = ledger();
    let secret = "xylophonist";
    let mut new = new_run("r-1", "slow-inventory");
    new.title = format!("Ask the {secret}");
    new.document = format!("# the {secret} said so");
    let mut report = broken("r-1", "slow-inventory");
    report.seen = format!("the {secret} was slow");
    let failure = conduct(&ledger, &new, &report).failure.unwrap();
    let on_disk = || {
        let files = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let bytes: Vec<u8> =
            files.filter(|file| file.is_file()).flat_map(|file| std::fs::read(file).unwrap()).collect();
        bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
    };
    assert!(on_disk() && ledger.search(secret).unwrap().len() == 1);
    for event in ledger.events("r-1").unwrap() {
        ledger.redact(event.seq, "names somebody").unwrap();
    }
    assert!(!on_disk());
    assert!(ledger.search(secret).unwrap().is_empty());
    let audit = ledger.audit().unwrap();
    assert_eq!((audit.events, audit.redacted, audit.broken), (5, 2, None));
    assert!(matches!(ledger.report("r-1"), Err(LedgerError::NoReport { why, .. }) if why.contains("names somebody")));
    let row = ledger.run("r-1").unwrap();
    assert_eq!((row.title.as_str(), row.ending, row.seen), ("slow-inventory", Some(Ending::Broken), None));
    let after = ledger.failure(&failure.id).unwrap();
    assert_eq!((after.fingerprint, after.occurrences), (failure.fingerprint, 1));
}

#[test]
fn a_redaction_is_no_cover_for_another_change() {
    let (_folder, ledger) = ledger();
    fail(&ledger, "r-1", "slow-inventory");
    ledger.redact(1, "once").unwrap();
    ledger.redact(1, "twice").unwrap();
    assert_eq!(ledger.audit().unwrap().broken, None);
    assert!(matches!(ledger.redact(4, "thrice"), Err(LedgerError::Refused(_))));
    assert!(matches!(ledger.redact(99, "nothing there"), Err(LedgerError::UnknownEvent { seq: 99 })));
    ledger.connection().execute("UPDATE events SET content = '{\"redacted\":\"slyly\"}' WHERE seq = 1", []).unwrap();
    assert_eq!(ledger.audit().unwrap().broken.unwrap().seq, 1);
}
