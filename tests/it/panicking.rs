//! Whatever goes wrong in a run's own code costs the run, not the traffic.

use pratfall::measure::Rule;
use pratfall::units::Span;

use crate::support::{Origin, Stage, everybody, get, listener};

#[tokio::test]
async fn a_run_that_panics_in_a_worker_costs_no_request() {
    let origin = Origin::well().await;
    for workers in [1, 2] {
        let stage = Stage::start(vec![listener("front", origin.address)], workers).await;
        let mut before = stage.front().await;
        assert_eq!(before.ask(get("/", "")).await.status(), 200);
        // A recorder refuses more questions than it has room for, with a panic: the lab asks before, this test does not.
        let run = stage.enroll_with(everybody("error: { status: 503 }"), |terms| {
            terms.rules = (0..9).map(|_| Rule::slow(Span::secs(1).get(), pratfall::measure::Until::Body)).collect();
        });
        let _injection = run.inject();
        for _ in 0..3 {
            assert_eq!(before.ask(get("/", "")).await.status(), 200, "{workers} workers: it is forwarded");
            let mut fresh = stage.front().await;
            assert_eq!(fresh.ask(get("/", "")).await.status(), 200);
        }
        assert_eq!(stage.h2("front").await.get("/").await.expect("an answer").1, "hello");
        drop(run);
        let run = stage.enroll(everybody("error: { status: 503 }"));
        let _injection = run.inject();
        assert_eq!(before.ask(get("/", "")).await.status(), 503, "the next run is none the worse");
    }
}
