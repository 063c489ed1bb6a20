//! What the ledger promises on a bad day: killed processes, full disks, files that are something else.
//!
//! Second processes are this test binary again: with a role in its environment, [`second_process`] plays it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::json;

use super::tests_sample::{broken, conduct, fail, held, ledger, new_run, path};
use super::{Ledger, LedgerError, RunState};

const ROLE: &str = "PRATFALL_LEDGER_TEST_ROLE";
const WHERE: &str = "PRATFALL_LEDGER_TEST_PATH";

#[test]
fn second_process() {
    let (Ok(role), Ok(path)) = (std::env::var(ROLE), std::env::var(WHERE)) else { return };
    let path = PathBuf::from(path);
    match role.as_str() {
        "opens" => say(&format!("{:?}", Ledger::open(&path).map(drop))),
        "owns" => {
            let ledger = Ledger::open(&path).unwrap();
            let _open = ledger.open_run(&new_run("r-child", "slow-inventory")).unwrap();
            say("owned");
            wait();
        }
        "writes without end" => {
            let ledger = Ledger::open(&path).unwrap();
            let _open = ledger.open_run(&new_run("r-child", "slow-inventory")).unwrap();
            for n in 0.. {
                ledger.note_run_event("r-child", "tick", json!({ "n": n })).unwrap();
                say(&format!("tick {n}"));
            }
        }
        "writes fifty" => {
            wait();
            let ledger = Ledger::open(&path).unwrap();
            write_fifty(&ledger, "r-child");
            say("written");
        }
        other => panic!("no such role: {other}"),
    }
}

fn say(text: &str) {
    println!("\n> {text}");
    std::io::stdout().flush().unwrap();
}

/// Until the parent lets go.
fn wait() {
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

fn command(role: &str, ledger: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "ledger::tests_bad_luck::second_process", "--nocapture"]);
    command.env(ROLE, role).env(WHERE, ledger).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// Reads on until the process says something that begins like this.
fn hear(process: &mut Child, beginning: &str) -> String {
    let mut lines = BufReader::new(process.stdout.as_mut().unwrap()).lines();
    let said =
        lines.find_map(|line| line.unwrap().strip_prefix("> ").filter(|l| l.starts_with(beginning)).map(str::to_owned));
    said.unwrap_or_else(|| panic!("the process ended before it said `{beginning}`"))
}

fn write_fifty(ledger: &Ledger, run: &str) {
    let open = ledger.open_run(&new_run(run, run)).unwrap();
    for n in 0..50 {
        ledger.note_run_event(run, "tick", json!({ "n": n })).unwrap();
    }
    ledger.close_run(open, &broken(run, run)).unwrap();
}

#[test]
fn a_run_whose_process_was_killed_is_found_as_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let path = path(folder.path());
    let mut owner = command("owns", &path).spawn().unwrap();
    hear(&mut owner, "owned");
    let ledger = Ledger::open(&path).unwrap();
    assert_eq!(ledger.run("r-child").unwrap().state, RunState::Open, "its owner lives");
    assert!(matches!(ledger.reopen("r-child"), Err(LedgerError::Owned { .. })));
    owner.kill().unwrap();
    owner.wait().unwrap();
    let ledger = Ledger::open(&path).unwrap();
    let run = ledger.run("r-child").unwrap();
    assert_eq!((run.state, run.ending, run.ended_at.is_some()), (RunState::Interrupted, None, true));
    assert!(ledger.close_abandoned().unwrap().is_empty(), "once");
    assert!(!path.with_extension("db.locks").join("r-child.lock").exists());
}

#[test]
fn what_was_written_before_the_kill_is_there_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = path(folder.path());
    let mut writer = command("writes without end", &path).spawn().unwrap();
    hear(&mut writer, "tick 20");
    writer.kill().unwrap();
    writer.wait().unwrap();
    let ledger = Ledger::open(&path).unwrap();
    let ticks = ledger.events("r-child").unwrap().into_iter().filter(|event| event.kind == "tick").count();
    assert!(ticks >= 21, "{ticks}");
    assert_eq!(ledger.audit().unwrap().broken, None);
    assert_eq!(ledger.run("latest").unwrap().state, RunState::Interrupted);
}

#[test]
fn two_processes_write_at_once_and_neither_loses_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let path = path(folder.path());
    let mut child = command("writes fifty", &path).spawn().unwrap();
    drop(child.stdin.take());
    let ledger = Ledger::open(&path).unwrap();
    write_fifty(&ledger, "r-parent");
    hear(&mut child, "written");
    assert!(child.wait().unwrap().success());
    assert_eq!(ledger.count_events().unwrap(), 2 * (50 + 3));
    assert_eq!(ledger.audit().unwrap().broken, None);
    assert_eq!(ledger.failures().unwrap().len(), 2);
}

#[test]
fn many_may_open_a_new_ledger_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = path(folder.path());
    let children: Vec<_> = (0..8).map(|_| command("opens", &path).spawn().unwrap()).collect();
    let mine = Ledger::open(&path);
    for mut child in children {
        assert_eq!(hear(&mut child, ""), "Ok(())");
        child.wait().unwrap();
    }
    mine.unwrap();
}

#[test]
fn many_threads_may_share_a_ledger() {
    let (_folder, ledger) = ledger();
    std::thread::scope(|scope| {
        for run in ["r-1", "r-2", "r-3", "r-4"] {
            let ledger = &ledger;
            scope.spawn(move || fail(ledger, run, "slow-inventory"));
        }
    });
    assert_eq!(ledger.failures().unwrap()[0].occurrences, 4);
    assert_eq!(ledger.audit().unwrap().broken, None);
}

#[test]
fn a_living_run_of_this_process_is_left_alone_and_a_dropped_one_is_not() {
    let (folder, ledger) = ledger();
    let open = ledger.open_run(&new_run("r-1", "slow-inventory")).unwrap();
    let other = Ledger::open(&path(folder.path())).unwrap();
    assert_eq!(other.run("r-1").unwrap().state, RunState::Open);
    drop(open);
    assert_eq!(other.run("r-1").unwrap().state, RunState::Open, "only opening looks");
    Ledger::open(&path(folder.path())).unwrap();
    assert_eq!(other.run("r-1").unwrap().state, RunState::Interrupted);
}

#[test]
fn a_report_that_comes_late_counts() {
    let (folder, ledger) = ledger();
    let open = ledger.open_run(&new_run("r-1", "slow-inventory")).unwrap();
    fs::remove_dir_all(path(folder.path()).with_extension("db.locks")).unwrap();
    Ledger::open(&path(folder.path())).unwrap();
    assert_eq!(ledger.run("r-1").unwrap().state, RunState::Interrupted, "its lock's file was taken away");
    ledger.close_run(open, &held("r-1", "slow-inventory")).unwrap();
    assert_eq!(ledger.run("r-1").unwrap().state, RunState::Closed);
    fs::remove_dir_all(path(folder.path()).with_extension("db.locks")).unwrap();
    fail(&ledger, "r-2", "slow-inventory");
    ledger.rebuild().unwrap();
    assert_eq!(ledger.run("r-1").unwrap().state, RunState::Closed);
}

#[test]
fn a_full_disk_loses_nothing_and_the_report_can_be_written_later() {
    let (_folder, ledger) = ledger();
    let open = ledger.open_run(&new_run("r-1", "slow-inventory")).unwrap();
    let pages: i64 = ledger.connection().query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    let allow = |pages: i64| {
        ledger.connection().query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).unwrap();
    };
    allow(pages);
    let mut report = broken("r-1", "slow-inventory");
    report.questions = vec!["why? ".repeat(10_000)];
    let full = ledger.close_run(open, &report).unwrap_err();
    assert!(matches!(full, LedgerError::Full { .. }), "{full:?}");
    let mut big = new_run("r-2", "slow-inventory");
    big.document = "x".repeat(100_000);
    assert!(matches!(ledger.open_run(&big), Err(LedgerError::Full { .. })));
    assert_eq!((ledger.count_events().unwrap(), ledger.failures().unwrap().len()), (1, 0));
    allow(1_000_000);
    let closed = ledger.close_run(ledger.reopen("r-1").unwrap(), &report).unwrap();
    assert!(closed.new);
    conduct(&ledger, &big, &held("r-2", "slow-inventory"));
    assert_eq!(ledger.audit().unwrap().broken, None);
}

#[test]
fn a_writer_that_never_ends_makes_the_others_say_so() {
    let (folder, ledger) = ledger();
    let other = Ledger::open(&path(folder.path())).unwrap();
    ledger.connection().busy_timeout(std::time::Duration::from_millis(1)).unwrap();
    let blocking = other.connection();
    blocking.execute_batch("BEGIN IMMEDIATE").unwrap();
    let busy = ledger.open_run(&new_run("r-1", "slow-inventory")).unwrap_err();
    assert!(matches!(busy, LedgerError::Busy { .. }), "{busy:?}");
    assert!(ledger.runs(9).unwrap().is_empty(), "reading goes on");
    blocking.execute_batch("ROLLBACK").unwrap();
    fail(&ledger, "r-1", "slow-inventory");
}

#[test]
fn a_panic_in_the_middle_leaves_a_ledger_that_works() {
    let (_folder, ledger) = ledger();
    let panicked = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                ledger.write(|tx| -> Result<(), LedgerError> {
                    super::events::record(tx, "note", "r-1", json!({}))?;
                    panic!("on purpose")
                })
            })
            .join()
    });
    assert!(panicked.is_err());
    assert_eq!(ledger.count_events().unwrap(), 0);
    fail(&ledger, "r-1", "slow-inventory");
}

#[test]
fn what_is_no_ledger_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let garbage = folder.path().join("garbage.db");
    fs::write(&garbage, "not a database, and longer than the head of one: ".repeat(40)).unwrap();
    let foreign = folder.path().join("foreign.db");
    rusqlite::Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE songs (title TEXT)").unwrap();
    for (file, expected) in [(&garbage, "Corrupt"), (&foreign, "Foreign")] {
        let before = fs::read(file).unwrap();
        let error = Ledger::open(file).unwrap_err();
        assert!(format!("{error:?}").starts_with(expected), "{error:?}");
        assert_eq!(fs::read(file).unwrap(), before, "{error}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left beside them");
}

#[test]
fn a_ledger_that_was_cut_off_is_refused_and_left_as_it_is() {
    let (folder, ledger) = ledger();
    fail(&ledger, "r-1", "slow-inventory");
    ledger.fold().unwrap();
    drop(ledger);
    let path = path(folder.path());
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..8192]).unwrap();
    let error = Ledger::open(&path).unwrap_err();
    assert!(matches!(error, LedgerError::Corrupt { .. }), "{error:?}");
    assert!(error.to_string().contains("restore a copy"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), &whole[..8192]);
}

#[test]
fn a_ledger_of_a_newer_version_is_refused() {
    let (folder, ledger) = ledger();
    let newer = "INSERT INTO refinery_schema_history VALUES (999, 'later', '2030-01-01T00:00:00Z', '1')";
    ledger.connection().execute(newer, []).unwrap();
    let error = Ledger::open(&path(folder.path())).unwrap_err();
    assert!(matches!(error, LedgerError::Newer { found: 999, known: 1, .. }), "{error:?}");
}

#[test]
fn an_empty_file_is_a_new_ledger_and_odd_names_are_names() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["empty.db", ":memory:", "file:x?mode=memory", "a b%20c?.db", "ünï.db"] {
        let path = folder.path().join(name);
        if name == "empty.db" {
            fs::write(&path, "").unwrap();
        }
        fail(&Ledger::open(&path).unwrap(), "r-1", "slow-inventory");
        assert!(path.is_file(), "{name}");
        assert_eq!(Ledger::open(&path).unwrap().runs(9).unwrap().len(), 1, "{name}");
    }
}

#[cfg(unix)]
#[test]
fn who_comes_by_a_link_finds_the_same_locks() {
    let (folder, ledger) = ledger();
    let _open = ledger.open_run(&new_run("r-1", "slow-inventory")).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("link.db");
    std::os::unix::fs::symlink(path(folder.path()), &link).unwrap();
    assert_eq!(Ledger::open(&link).unwrap().run("r-1").unwrap().state, RunState::Open);
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
}

/// Root may write everywhere, so that the one who opens is nobody.
#[cfg(unix)]
#[test]
fn a_folder_or_file_that_cannot_be_written_is_named() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;
    let (folder, ledger) = ledger();
    drop(ledger);
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(&path(folder.path()), 0o444);
    mode(folder.path(), 0o555);
    let am_root = fs::metadata(folder.path()).unwrap().uid() == 0;
    for ledger in [path(folder.path()), folder.path().join("new.db"), folder.path().join("folder/new.db")] {
        let mut command = command("opens", &ledger);
        if am_root {
            command.uid(65534).gid(65534);
        }
        match command.spawn() {
            Ok(mut child) => {
                let said = hear(&mut child, "");
                assert!(said.starts_with("Err(NotWritable"), "{}: {said}", ledger.display());
                child.wait().unwrap();
            }
            Err(error) => println!("SKIPPED: nobody may not run this test ({error})"),
        }
    }
    mode(folder.path(), 0o755);
}

#[test]
fn a_ledger_that_was_deleted_while_it_was_open_takes_nothing_in_silence() {
    let (_folder, ledger) = ledger();
    ledger.try_out().unwrap();
    assert_eq!(ledger.trouble(), None);
    fs::remove_file(ledger.path()).unwrap();
    let refused = ledger.open_run(&new_run("r-1", "slow-inventory"));
    assert!(matches!(refused, Err(LedgerError::Gone { .. })), "{refused:?}");
    assert!(ledger.trouble().unwrap().contains("deleted or moved"));
}
