//! Rehearsals on Tokio's paused clock: what they say of the shop on the stage, and that they break nothing.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::map::Context;
use super::stage::{SLOW, Stage, document, on_stage};
use super::{Control, Rehearsed};
use crate::experiment::limits::Limits;
use crate::experiment::{Ending, Experiment};

async fn rehearsed(stage: &Rc<Stage>, experiment: Arc<Experiment>) -> Rehearsed {
    // Whatever is not allowed to be injected may be rehearsed.
    let lab = super::Lab { limits: Arc::new(Limits::default()), ..stage.lab.clone() };
    let control = Control::new(lab, None);
    let started = control.rehearse(Stage::order(experiment, 7), "10s".parse().unwrap(), false).unwrap();
    let rehearsed = started.result.await.unwrap().unwrap();
    assert_eq!(stage.shop.late.get(), 0, "nothing was injected");
    stage.is_quiet("rehearsed").await;
    rehearsed
}

#[tokio::test(start_paused = true)]
async fn where_the_context_arrives_a_run_may_begin_and_is_told_what_it_needs() {
    on_stage(|stage| async move {
        let seen = rehearsed(&stage, document(&[])).await;
        assert_eq!(seen.ending, Ending::Held, "{}", seen.reason);
        let [front, inventory] = seen.map.listeners.as_slice() else { panic!("two listeners") };
        assert_eq!((seen.map.enrolled, front.context), (500, Context::Begins));
        assert_eq!((inventory.requests, inventory.calls, inventory.context), (500, 500, Context::Arrives));
        assert_eq!((inventory.without, inventory.most_attempts), (0, 1));
        assert!(seen.differ.is_empty() && seen.map.losses.is_empty());
        assert!(seen.arms[0].treated.of + seen.arms[0].control.of > 400);
        let needs = seen.needs.unwrap();
        assert!((45.0..52.0).contains(&needs.rate) && needs.treated > 30, "{needs:?}");
        // Baseline and recovery of five seconds are written; 20 s of inject at a fifth are enough or said not to be.
        assert_eq!((needs.run_ms, needs.too_short_ms.is_some()), (30_000, needs.inject_ms > 20_000));
        assert!(seen.refused.unwrap().contains("not armed"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_shop_that_passes_nothing_on_is_named_and_nothing_may_begin() {
    on_stage(|stage| async move {
        stage.shop.carries.set(false);
        let seen = rehearsed(&stage, document(&[])).await;
        assert_eq!((seen.ending, seen.reason.as_str()), (Ending::Invalid, "the context does not reach inventory"));
        let [loss] = seen.map.losses.as_slice() else { panic!("{:?}", seen.map.losses) };
        assert_eq!((loss.at.as_str(), loss.behind.as_deref()), ("inventory", Some("front")));
        assert_eq!(seen.map.listeners[1].without, 500);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn no_traffic_and_too_little_of_it_are_told_apart() {
    on_stage(|stage| async move {
        let nobody = document(&[("{ at: front, treatment", "{ at: front, match: { path: /never }, treatment")]);
        let seen = rehearsed(&stage, nobody).await;
        assert_eq!((seen.ending, seen.map.enrolled), (Ending::Invalid, 0), "{}", seen.reason);
        let never = document(&[("{ at: inventory, faults", "{ at: inventory, match: { path: /never }, faults")]);
        let seen = rehearsed(&stage, never).await;
        assert_eq!(seen.ending, Ending::Invalid, "{}", seen.reason);
        assert_eq!(seen.map.listeners[1].context, Context::NoCalls);
        let few = document(&[("{ at: front, treatment", "{ at: front, match: { path: '/checkout/*00' }, treatment")]);
        let seen = rehearsed(&stage, few).await;
        assert_eq!(seen.ending, Ending::Inconclusive, "{}", seen.reason);
        assert!(seen.reason.contains("too little traffic"), "{}", seen.reason);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_system_that_is_not_well_by_itself_is_said_to_be_so() {
    on_stage(|stage| async move {
        stage.shop.sick.set(Some((Duration::ZERO, Duration::from_secs(60))));
        let bound =
            document(&[(SLOW, "{ name: well, error_rate: { max: 2% } }"), ("phases:", "halt_when: none\nphases:")]);
        let seen = rehearsed(&stage, bound).await;
        assert_eq!(seen.ending, Ending::Inconclusive, "{}", seen.reason);
        assert!(seen.unquiet.is_some());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn arms_that_differ_without_any_fault_are_no_arms_whichever_is_the_worse() {
    on_stage(|stage| async move {
        let errors = document(&[
            (SLOW, "{ name: well, error_rate: { max_increase: 10pp } }"),
            ("phases:", "halt_when: none\nphases:"),
        ]);
        for (arm, words) in [(".t.", "well: 100 % treated v 0 % control"), (".c.", "well: 0 % treated v 100 % control")]
        {
            stage.shop.dislikes.set(Some(arm));
            let seen = rehearsed(&stage, errors.clone()).await;
            assert_eq!(
                (seen.ending, seen.differ.as_slice()),
                (Ending::Invalid, [words.to_owned()].as_slice()),
                "{arm}"
            );
            assert!(seen.reason.contains("differ without any fault"), "{}", seen.reason);
        }
    })
    .await;
}
