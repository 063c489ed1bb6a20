//! What workers record and the tally adds up, on Tokio's paused clock.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::block::{Undecided, cut};
use super::operation::{Event, Met, Operations};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

struct Desk {
    recorder: Rc<Recorder>,
    feed: UnboundedReceiver<Batch>,
    harmed: Arc<Budget>,
    tally: Tally,
}

impl Desk {
    /// Errors and slowness over a second, of which the first so many are indicators.
    fn new(indicators: usize, window: Option<u32>) -> Self {
        let rules = [Rule::Error([Count::Class(5), Count::Timeout].into()), Rule::slow(SECOND, Until::Body)];
        let harmed = Arc::new(Budget::new(100, CancellationToken::new()));
        let (send, feed) = unbounded_channel();
        let recorder = Recorder::new(
            0,
            rules.into(),
            indicators,
            if window.is_some() { Keep::People } else { Keep::Nothing },
            harmed.clone(),
            send,
        );
        Self { recorder, feed, harmed, tally: Tally::new(1, window) }
    }

    fn begin(&self, arm: Arm, mark: PhaseMark, key: u64) -> Unit {
        let (start, patience) = (Instant::now(), 3 * SECOND);
        self.recorder.begin(Arrival { arm, mark, now: start, start, patience, key, op: u128::from(key) })
    }

    fn flush(&mut self) {
        self.recorder.flush();
        while let Ok(batch) = self.feed.try_recv() {
            self.tally.add(batch);
        }
    }

    fn sum(&self, phase: Phase, arm: Arm) -> Counts {
        self.tally.sum(phase)[arm as usize]
    }
}

fn mark(phase: Phase) -> PhaseMark {
    PhaseMark { phase, since: Instant::now() }
}

#[tokio::test(start_paused = true)]
async fn a_unit_belongs_to_the_phase_and_tick_of_its_arrival_whenever_it_is_decided() {
    let mut desk = Desk::new(2, None);
    let baseline = mark(Phase::Baseline);
    sleep(TICK * 3 - Duration::from_millis(1)).await;
    let late = desk.begin(Arm::Control, baseline, 1);
    sleep(Duration::from_millis(1)).await;
    let inject = mark(Phase::Inject);
    let next = desk.begin(Arm::Control, inject, 2);
    desk.flush();
    assert!(!desk.sum(Phase::Baseline, Arm::Control).is_decided(0));
    sleep(2 * SECOND).await;
    late.settle(End::Transport);
    desk.flush();
    let ticks: Vec<u32> = desk.tally.requests(Phase::Baseline).map(|(tick, _)| tick).collect();
    let counts = desk.sum(Phase::Baseline, Arm::Control);
    assert_eq!((ticks, counts.decided[..2].to_vec(), counts.bad[1]), (vec![2], vec![1, 1], 1.0));
    let counts = desk.sum(Phase::Inject, Arm::Control);
    assert_eq!(
        (counts.arrived, counts.decided[0], counts.decided[1]),
        (1, 0, 1),
        "slow already, and nobody knows more"
    );
    drop(next);
}

#[tokio::test(start_paused = true)]
async fn whoever_gets_no_head_is_an_error_at_the_response_timeout() {
    let mut desk = Desk::new(2, None);
    let inject = mark(Phase::Inject);
    let (hanging, mut streaming) = (desk.begin(Arm::Treatment, inject, 1), desk.begin(Arm::Treatment, inject, 2));
    streaming.head(200, None);
    sleep(3 * SECOND).await;
    desk.flush();
    assert_eq!(desk.sum(Phase::Inject, Arm::Treatment).decided[0], 0);
    sleep(Duration::from_millis(1)).await;
    desk.flush();
    let counts = desk.sum(Phase::Inject, Arm::Treatment);
    assert_eq!((counts.decided[0], counts.bad[0]), (1, 1.0), "the one that streams is not an error");
    streaming.settle(End::Complete);
    hanging.settle(End::Complete);
    desk.flush();
    let counts = desk.sum(Phase::Inject, Arm::Treatment);
    assert_eq!((counts.decided[0], counts.bad[0]), (2, 1.0), "what was decided stays so");
}

#[tokio::test(start_paused = true)]
async fn harm_is_counted_once_a_unit_by_indicators_and_in_the_treatment_of_inject_only() {
    for (indicators, expected) in [(2, 1), (1, 0)] {
        let desk = Desk::new(indicators, None);
        let (baseline, inject) = (mark(Phase::Baseline), mark(Phase::Inject));
        let units = [
            desk.begin(Arm::Treatment, inject, 1),
            desk.begin(Arm::Control, inject, 2),
            desk.begin(Arm::Treatment, baseline, 3),
        ];
        sleep(2 * SECOND).await;
        desk.recorder.flush();
        assert_eq!(desk.harmed.spent(), expected, "slow, and {indicators} of the questions are indicators'");
        let [treated, ..] = units;
        treated.settle(End::Timeout);
        assert_eq!(desk.harmed.spent(), 1, "an error is harm, and who was slow was harmed already");
    }
}

#[tokio::test(start_paused = true)]
async fn ticks_are_complete_when_all_workers_have_told_of_them() {
    let mut tally = Tally::new(2, None);
    let began = Instant::now();
    let mut hear = |worker, ticks| {
        tally.add(Batch::empty(worker, began + TICK * ticks));
        tally.complete_until().map(|until| (until - began).as_millis() / TICK.as_millis())
    };
    assert_eq!([hear(0, 9), hear(1, 3), hear(1, 11)], [None, Some(3), Some(9)]);
}

#[tokio::test(start_paused = true)]
async fn people_count_once_with_the_share_of_their_requests_in_the_window() {
    let mut desk = Desk::new(2, Some(8));
    let inject = mark(Phase::Inject);
    // Ada comes three times in two seconds, once with an error, and once more later; Bob comes at the end and is well.
    for (key, end) in [(1, End::Complete), (1, End::Timeout), (1, End::Complete)] {
        desk.begin(Arm::Treatment, inject, key).settle(end);
        sleep(TICK).await;
    }
    sleep(TICK * 8).await;
    desk.begin(Arm::Treatment, inject, 1).settle(End::Timeout);
    desk.begin(Arm::Control, inject, 2).settle(End::Complete);
    desk.flush();
    let now = inject.tick(Instant::now());
    let units = desk.tally.units(Phase::Inject, 0, now);
    assert_eq!(units.keys().copied().collect::<Vec<_>>(), [0, now], "each in the tick of their first request");
    let ada = units[&0][Arm::Treatment as usize];
    assert_eq!((ada.arrived, ada.decided[0], ada.bad[0]), (1, 1, 1.0 / 3.0));
    assert_eq!(units[&now][Arm::Control as usize].decided[0], 0, "Bob's window is open while the phase lasts");
    let over = desk.tally.units_of(Phase::Inject)[Arm::Control as usize];
    assert_eq!((over.decided[0], over.bad[0]), (1, 0.0), "and over with it");
    let blocks = cut(&desk.tally.units(Phase::Inject, 0, u32::MAX), 0, u32::MAX, Undecided::Bad);
    assert_eq!((blocks[0].n_t, blocks[0].bad_t, blocks[0].bad_c), (1, 1.0 / 3.0, 0.0));
}

#[test]
fn calls_are_joined_with_their_operations_and_counted_as_attempts() {
    let mut operations = Operations::default();
    let call = |op, call, unsafe_method, met| Event::Call { op, call, unsafe_method, met };
    for event in [
        call(1, 7, true, Met::Error(503)),
        call(1, 7, true, Met::Nothing),
        call(1, 8, false, Met::Nothing),
        Event::Operation { op: 1, failed: false, end: End::Complete, total: SECOND },
        call(2, 7, false, Met::Nothing),
    ] {
        operations.hear(event);
    }
    assert_eq!(
        (operations.most_attempts, operations.unsafe_repeats, operations.faulted, operations.over()),
        (2, 1, 1, 1)
    );
    assert_eq!((operations.attempts_per_call(), operations.calls_per_operation()), (4.0 / 3.0, 2.0));
    let exposed: Vec<_> = operations.exposed().map(|one| (one.calls, one.faulted, one.errors)).collect();
    assert_eq!(exposed, [(3, 1, 1)]);
}
