//! Faults by hand on Tokio's paused clock: whom they meet, what ends them, and what is remembered.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::control::LEASE;
use super::stage::{Stage, on_stage};
use super::{Control, Exploration, Explored, Refusal};
use crate::experiment::ByHand;
use crate::experiment::by_hand::read_fault;
use crate::experiment::limits::Limits;
use crate::ledger::{Ledger, RunState};

fn asked(text: &str) -> Exploration {
    let by_hand = ByHand::parse("test", text).unwrap_or_else(|problems| panic!("{problems}"));
    Exploration::new(by_hand, &["front", "inventory"], "r-20261129-000000-hand".into()).unwrap()
}

async fn explored(stage: &Rc<Stage>, control: &Arc<Control>, text: &str) -> Explored {
    let explored = control.explore(asked(text), false).unwrap().result.await.unwrap().unwrap();
    stage.is_quiet(text).await;
    explored
}

const SLOW: &str = "at: inventory\nfaults: [{ latency: { delay: 2s } }]\nshare: 20%\nfor: 30s\nseed: 4\n";

#[tokio::test(start_paused = true)]
async fn a_fault_by_hand_meets_its_share_of_everybody_and_goes_when_its_time_is_over() {
    on_stage(|stage| async move {
        let control = Control::new(stage.lab.clone(), None);
        // Nothing has to be passed on by anybody.
        stage.shop.carries.set(false);
        let seen = explored(&stage, &control, SLOW).await;
        let share = seen.faulted as f64 / 1500.0;
        assert!((share - 0.2).abs() < 0.03, "{share}");
        assert_eq!(seen.faulted, u64::from(stage.shop.late.get()), "each was late, and nobody else");
        assert_eq!(seen.faulted + seen.spared["share"], 1500);
        assert_eq!((seen.ended_by, seen.lasted_ms / 250), (None, 120));
        assert!(seen.released > 0, "those who were held at the end were let go");
        assert!(seen.experiment.contains("slice: { at: front, treatment: 20%"), "{}", seen.experiment);
        let none = explored(&stage, &control, &format!("{SLOW}match: {{ path: /other }}\n")).await;
        assert_eq!((none.faulted, none.spared.len()), (0, 0), "it matches nobody");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_budget_a_halt_a_lost_lease_and_a_signal_end_it_at_once_and_let_everybody_go() {
    on_stage(|stage| async move {
        let control = Control::new(stage.lab.clone(), None);
        let hour = SLOW.replace("2s", "1h").replace("30s", "30m");
        let few = explored(&stage, &control, &format!("{hour}budget: 7\n")).await;
        assert_eq!((few.faulted, few.released), (7, 7));
        assert_eq!(few.ended_by.as_deref(), Some("the budget is spent: 7 calls met the fault"));
        assert!(few.lasted_ms < 5000, "{}", few.lasted_ms);

        let started = control.explore(asked(&hour), true).unwrap();
        sleep(LEASE.mul_f64(0.8)).await;
        assert!(control.heartbeat(&started.run));
        assert!(stage.shop.waiting.get() > 30, "people are held");
        let lost = started.result.await.unwrap().unwrap();
        assert_eq!(lost.ended_by.as_deref(), Some("the lease ran out: no heartbeat came"));
        stage.is_quiet("lease").await;

        let started = control.explore(asked(&hour), false).unwrap();
        sleep(Duration::from_secs(5)).await;
        control.halt("ada").unwrap();
        let halted = started.result.await.unwrap().unwrap();
        assert_eq!(halted.ended_by.as_deref(), Some("halted by ada"));
        stage.is_quiet("halt").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_limits_of_runs_hold_and_two_do_not_stand_at_one_listener() {
    on_stage(|stage| async move {
        let refused = async |limits: Limits, text: &str| {
            let lab = super::Lab { limits: Arc::new(limits), ..stage.lab.clone() };
            let result = Control::new(lab, None).explore(asked(text), false).unwrap().result.await.unwrap();
            let refusal = result.unwrap_err();
            assert!(stage.shop.late.get() == 0, "nothing was injected");
            refusal
        };
        let limits = || Limits::default().with_every_fault();
        for (limits, text, why) in [
            (Limits::default(), SLOW, "not armed"),
            (Limits { max_slice: Some("10%".parse().unwrap()), ..limits() }, SLOW, "max_slice"),
            (Limits { max_duration: "10s".parse().unwrap(), ..limits() }, SLOW, "max_duration"),
        ] {
            assert!(matches!(refused(limits, text).await, Refusal::NotNow(said) if said.contains(why)), "{why}");
        }
        let nowhere = refused(limits(), &SLOW.replace("inventory", "stock")).await;
        assert!(matches!(nowhere, Refusal::Document(said) if said.contains("no listener `stock`")));
        let later = refused(limits(), &SLOW.replace("latency: { delay: 2s }", "tls: { how: expired }")).await;
        assert!(matches!(later, Refusal::Document(_)), "{later}");

        let lab = super::Lab { limits: Arc::new(Limits { max_running: 2, ..limits() }), ..stage.lab.clone() };
        let control = Control::new(lab, None);
        let first = control.explore(asked(SLOW), false).unwrap();
        let second = control.explore(asked(SLOW), false);
        assert!(matches!(second, Err(Refusal::NotNow(why)) if why.contains("one at a time")));
        drop(first.result.await);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_protected_is_spared_and_counted() {
    on_stage(|stage| async move {
        let path = crate::experiment::glob::PathGlob::new("/stock/**").unwrap();
        let protect = vec![crate::experiment::limits::Protected { at: "inventory".into(), path }];
        let limits = Limits { protect, ..Limits::default().with_every_fault() };
        let lab = super::Lab { limits: Arc::new(limits), ..stage.lab.clone() };
        let seen = explored(&stage, &Control::new(lab, None), SLOW).await;
        assert_eq!((seen.faulted, seen.spared["protected"]), (0, 1500));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn it_is_kept_without_a_verdict_and_is_nobodys_failure() {
    on_stage(|stage| async move {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Arc::new(Ledger::open(&folder.path().join("pratfall.db")).unwrap());
        let lab = super::Lab { ledger: Some(ledger.clone()), ..stage.lab.clone() };
        let seen = explored(&stage, &Control::new(lab, None), SLOW).await;
        let row = ledger.run(&seen.run).unwrap();
        assert_eq!((row.state, row.by_hand, row.ending), (RunState::Closed, true, None));
        assert!(row.title.starts_with("by hand: latency of 2 s at inventory"), "{}", row.title);
        assert_eq!(row.seen, Some(seen.seen()));
        assert!(ledger.failures().unwrap().is_empty());
        let none = ledger.report(&seen.run).unwrap_err().to_string();
        assert!(none.contains("by hand"), "{none}");
        assert!(ledger.run("latest").is_err(), "the latest run is one with a verdict");
        ledger.rebuild().unwrap();
        assert_eq!(ledger.run(&seen.run).unwrap(), row, "the tables are made of the events");
        assert!(ledger.audit().unwrap().broken.is_none());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_nobody_read_is_no_fault() {
    on_stage(|stage| async move {
        let control = Control::new(stage.lab.clone(), None);
        let unread = read_fault("fault", "latency: { histogram: delays.csv }", &|_| None);
        let unread = unread.unwrap_or_else(|problems| panic!("{problems}"));
        let by_hand = ByHand { faults: vec![unread], ..ByHand::parse("test", SLOW).unwrap() };
        let asked = Exploration::new(by_hand, &["front", "inventory"], "r-unread".to_owned()).unwrap();
        let refused = control.explore(asked, false).unwrap().result.await.unwrap().unwrap_err();
        assert!(refused.to_string().contains("`histogram: delays.csv` was not read"), "{refused}");
    })
    .await;
}
