//! Whatever the way out of a run, no fault stays on and nobody stays held.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::control::{Control, LEASE};
use super::stage::{DOCUMENT, LATENCY, SLOW, Stage, document, on_stage};
use super::{Refusal, Stop};
use crate::experiment::{Ending, Experiment};
use crate::ledger::halt::HaltMark;

/// Everybody who is treated hangs, and nothing in the hypothesis minds: the fault stays for the whole of inject.
fn hanging() -> Arc<Experiment> {
    let errors = "{ name: well, error_rate: { max_increase: 10pp } }";
    let text = DOCUMENT.replace(SLOW, errors).replace(LATENCY, "{ drop: { how: hang } }");
    document(&[(DOCUMENT, &text)])
}

#[tokio::test(start_paused = true)]
async fn a_run_can_be_stopped_at_any_moment_in_any_way() {
    on_stage(|stage| async move {
        let mut rng = SmallRng::seed_from_u64(50);
        let (mut held, mut early) = (0, 0);
        for number in 0..50 {
            let live = stage.start(hanging());
            // Baseline takes 5 s, inject 20 s, the wait for the last up to 30 s, recovery 5 s.
            let moment = Duration::from_millis(rng.random_range(0..58_000));
            sleep(moment).await;
            held += stage.shop.waiting.get();
            let stop = match number % 4 {
                0 => Some(Stop::Halt("ada".into())),
                1 => Some(Stop::Signal(15)),
                2 => Some(Stop::Lease),
                _ => None,
            };
            let why = format!("{stop:?} after {moment:?}");
            match stop {
                Some(stop) => {
                    let since = Instant::now();
                    live.stop.send(Some(stop.clone())).unwrap();
                    let report = live.run.await.unwrap().unwrap();
                    assert!(since.elapsed() < Duration::from_millis(100), "{why}: took {:?}", since.elapsed());
                    assert_ne!(report.verdict.ending, Ending::Held, "{why}");
                    // A hang of everybody is broken once its end was waited for; before that nobody can know.
                    if report.verdict.ending != Ending::Broken {
                        assert_eq!(report.verdict.ended_by, Some(stop.to_string()), "{why}");
                        early += 1;
                    }
                }
                None => {
                    live.run.abort();
                    assert!(live.run.await.unwrap_err().is_cancelled());
                }
            }
            stage.is_quiet(&why).await;
        }
        assert!(held > 200 && early > 10, "{held} were held when their run was stopped, {early} ended early");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_stopped_while_the_last_are_waited_for_says_nothing_of_them() {
    on_stage(|stage| async move {
        let live = stage.start(hanging());
        sleep(Duration::from_secs(30)).await;
        assert_eq!(live.progress.borrow().phase, "recovery");
        assert!(live.progress.borrow().held > 100, "they are still held");
        live.stop.send(Some(Stop::Halt("ada".into()))).unwrap();
        let report = live.run.await.unwrap().unwrap();
        assert_eq!(report.verdict.ending, Ending::Halted, "{}", report.verdict.reason);
        stage.is_quiet("stopped in the wait").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_would_have_held_is_halted_when_its_recovery_is_not_waited_for() {
    on_stage(|stage| async move {
        stage.shop.timeout.set(Some(Duration::from_millis(300)));
        let live = stage.start(document(&[]));
        sleep(Duration::from_secs(27)).await;
        assert_eq!(live.progress.borrow().phase, "recovery");
        live.stop.send(Some(Stop::Signal(2))).unwrap();
        let report = live.run.await.unwrap().unwrap();
        assert_eq!(report.verdict.ending, Ending::Halted);
        assert_eq!(report.verdict.ended_by.as_deref(), Some("interrupted (SIGINT)"));
        assert!(report.recovery.is_none());
    })
    .await;
}

/// Panics when the run says certain words.
struct Bomb(&'static str);

impl<S: Subscriber> Layer<S> for Bomb {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut words = Words(self.0, false);
        event.record(&mut words);
        assert!(!words.1, "planted: {}", self.0);
    }
}

struct Words(&'static str, bool);

impl Visit for Words {
    fn record_debug(&mut self, _: &Field, value: &dyn Debug) {
        self.1 |= format!("{value:?}").contains(self.0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_ours_takes_the_fault_with_it() {
    on_stage(|stage| async move {
        for words in ["baseline began", "inject began", "shown broken", "the fault was taken off", "recovery began"] {
            let bomb = tracing::subscriber::set_default(tracing_subscriber::registry().with(Bomb(words)));
            let text = format!("{DOCUMENT}observe: 5s\n");
            let live = stage.start(document(&[(DOCUMENT, &text)]));
            let ended = live.run.await;
            drop(bomb);
            assert!(ended.unwrap_err().is_panic(), "{words}");
            stage.is_quiet(words).await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_switchboard_survives_a_panic_and_says_so() {
    on_stage(|stage| async move {
        let control = Control::new(stage.lab.clone(), None);
        let bomb = tracing::subscriber::set_default(tracing_subscriber::registry().with(Bomb("inject began")));
        let started = control.start(Stage::order(hanging(), 1), false).unwrap();
        let result = started.result.await.unwrap();
        drop(bomb);
        assert!(matches!(result, Err(Refusal::Internal(why)) if why.contains("panic")));
        assert_eq!(control.live(), 0);
        stage.is_quiet("a panic under the switchboard").await;
        assert!(control.start(Stage::order(hanging(), 1), false).is_ok(), "the next may start");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_leased_run_ends_without_a_heartbeat_and_goes_on_with_one() {
    on_stage(|stage| async move {
        let control = Control::new(stage.lab.clone(), None);
        let started = control.start(Stage::order(hanging(), 1), true).unwrap();
        for _ in 0..4 {
            sleep(LEASE.mul_f64(0.8)).await;
            assert!(control.heartbeat(&started.run));
        }
        assert_eq!(started.progress.borrow().phase, "recovery", "it outlived its first lease");
        let since = Instant::now();
        let report = started.result.await.unwrap().unwrap();
        assert!((10.0..10.2).contains(&since.elapsed().as_secs_f64()), "{:?}", since.elapsed());
        assert_eq!(report.verdict.ended_by.as_deref(), Some("the lease ran out: no heartbeat came"));
        stage.is_quiet("lease").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_halt_from_another_process_is_obeyed_within_a_tenth_of_a_second() {
    on_stage(|stage| async move {
        let folder = tempfile::tempdir().unwrap();
        let mark = || HaltMark::beside(&folder.path().join("pratfall.db"));
        let control = Control::new(stage.lab.clone(), Some(mark()));
        let started = control.start(Stage::order(hanging(), 1), false).unwrap();
        let place = control.start(Stage::order(hanging(), 1), false);
        assert!(matches!(place, Err(Refusal::NotNow(why)) if why.contains("one at a time")));
        sleep(Duration::from_secs(12)).await;
        assert!(stage.shop.waiting.get() > 20, "people are held");
        mark().set("ada").unwrap();
        sleep(Duration::from_millis(100)).await;
        assert!(stage.shop.waiting.get() <= 1, "nobody is held any more");
        let report = started.result.await.unwrap().unwrap();
        assert_eq!(report.verdict.ended_by.as_deref(), Some("halted by ada"));
        let refused = control.start(Stage::order(hanging(), 1), false);
        assert!(matches!(refused, Err(Refusal::NotNow(why)) if why.contains("pratfall resume")));
        stage.is_quiet("halt").await;
        control.resume().unwrap();
        assert!(control.start(Stage::order(hanging(), 1), false).is_ok());
    })
    .await;
}
