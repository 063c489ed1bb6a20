//! What became of a request is counted as what it was, for a rule about errors and one about slowness.

use pratfall::measure::{Arm, Counts, Phase, Rule, Tally, Until};
use pratfall::units::Span;

use crate::support::{Origin, Run, Stage, everybody, get, listener, ok, until};

fn treated(tally: &Tally, phase: Phase) -> Counts {
    tally.sum(phase)[Arm::Treatment as usize]
}

/// Waits for one more unit to be decided, and says whether it was an error, and slow.
async fn outcome(run: &mut Run) -> (bool, bool) {
    let before = treated(&run.tally, Phase::Baseline);
    let after = run.tally("it is decided", |tally| {
        let now = treated(tally, Phase::Baseline);
        now.arrived == before.arrived + 1 && now.decided[0] > before.decided[0] && now.decided[1] > before.decided[1]
    });
    let after = treated(after.await, Phase::Baseline);
    (after.bad[0] > before.bad[0], after.bad[1] > before.bad[1])
}

#[tokio::test]
async fn each_end_is_counted_as_what_it_was() {
    let origin = Origin::scripted(|mut visit| async move {
        while let Some(request) = visit.request().await {
            let line = request.start();
            let answer = match line.split(' ').nth(1).expect("a target") {
                "/200" => ok("hello"),
                "/empty" => ok(""),
                "/404" => b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(),
                "/503" => b"HTTP/1.1 503 Unavailable\r\ncontent-length: 2\r\n\r\nno".to_vec(),
                "/grpc" => b"HTTP/1.1 200 OK\r\ngrpc-status: 14\r\ncontent-length: 0\r\n\r\n".to_vec(),
                "/torn" => return visit.wire.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello").await,
                "/gone" => return,
                _ => return visit.ended().await,
            };
            visit.wire.send(answer).await;
        }
    })
    .await;
    let mut front = listener("front", origin.address);
    front.timeouts.response = Span::millis(500);
    let stage = Stage::start(vec![front], 1).await;
    let mut run = stage.enroll(everybody("latency: { delay: 1s }"));
    for (target, error, slow) in [
        ("/200", false, false),
        ("/empty", false, false),
        ("/404", false, false),
        ("/503", true, false),
        ("/grpc", true, false),
        ("/torn", true, true),
        ("/gone", true, true),
        ("/late", true, true),
    ] {
        let mut caller = stage.front().await;
        caller.send(get(target, "")).await;
        caller.answer(false).await;
        assert_eq!(outcome(&mut run).await, (error, slow), "{target}");
    }
    // On HTTP/2 the same.
    let caller = stage.h2("front").await;
    assert!(caller.get("/200").await.is_ok());
    assert_eq!(outcome(&mut run).await, (false, false));
    assert!(caller.get("/torn").await.is_err());
    assert_eq!(outcome(&mut run).await, (true, true));
}

#[tokio::test]
async fn nobody_there_is_an_error_and_never_quick() {
    let stage = Stage::before(Origin::nobody().await).await;
    let mut run = stage.enroll(everybody("latency: { delay: 1s }"));
    assert_eq!(stage.front().await.ask(get("/", "")).await.status(), 502);
    assert_eq!(outcome(&mut run).await, (true, true));
}

#[tokio::test]
async fn a_caller_that_gives_up_is_an_error_and_never_quick() {
    for answer in ["", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello"] {
        let origin = Origin::scripted(move |mut visit| async move {
            visit.request().await;
            visit.wire.send(answer).await;
            visit.ended().await;
        })
        .await;
        let stage = Stage::before(origin.address).await;
        let mut run = stage.enroll_with(everybody("latency: { delay: 1s }"), |terms| {
            terms.rules[1] = Rule::slow(Span::secs(3600).get(), Until::Body);
        });
        for upload in ["", "content-length: 3\r\n\r\nabc"] {
            let asked = origin.seen().len();
            let mut caller = stage.front().await;
            caller
                .send(format!("GET / HTTP/1.1\r\nhost: a\r\n{upload}{}", if upload.is_empty() { "\r\n" } else { "" }))
                .await;
            origin.until_asked(asked + 1).await;
            if !answer.is_empty() {
                caller.head().await.expect("the answer begins");
            }
            drop(caller);
            assert_eq!(outcome(&mut run).await, (true, true));
        }
        let caller = stage.h2("front").await;
        let asked = origin.seen().len();
        let leaving = tokio::spawn(async move { caller.get("/").await.map(drop) });
        origin.until_asked(asked + 1).await;
        leaving.abort();
        assert_eq!(outcome(&mut run).await, (true, true));
    }
}

#[tokio::test]
async fn slow_is_decided_while_the_answer_is_still_on_its_way() {
    let origin = Origin::scripted(|mut visit| async move {
        visit.request().await;
        visit.ended().await;
    })
    .await;
    let stage = Stage::before(origin.address).await;
    let mut run = stage.enroll_with(everybody("latency: { delay: 1s }"), |terms| {
        terms.rules[1] = Rule::slow(Span::millis(20).get(), Until::Body);
    });
    let mut caller = stage.front().await;
    caller.send(get("/", "")).await;
    let tally = run.tally("it is slow", |tally| treated(tally, Phase::Baseline).bad[1] == 1.0).await;
    assert_eq!(treated(tally, Phase::Baseline).decided[0], 0, "whether it is an error nobody knows yet");
    assert!(caller.is_silent());
    drop(caller);
    run.tally("then it is", |tally| treated(tally, Phase::Baseline).bad[0] == 1.0).await;
}

#[tokio::test]
async fn a_treated_request_that_is_cut_held_or_refused_is_counted_with_its_phase() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    for (fault, error, slow) in [
        ("error: { status: 503 }", 1.0, 0.0),
        ("error: { status: 404 }", 0.0, 0.0),
        ("drop: { how: reset }", 1.0, 1.0),
        ("drop: { how: close }", 1.0, 1.0),
    ] {
        let mut run = stage.enroll(everybody(fault));
        let _injection = run.inject();
        let mut caller = stage.front().await;
        caller.send(get("/", "")).await;
        caller.rest_of_one().await;
        let tally = run.tally("it is decided", |tally| treated(tally, Phase::Inject).decided[0] == 1).await;
        let counts = treated(tally, Phase::Inject);
        assert_eq!((counts.arrived, counts.bad[0], counts.bad[1]), (1, error, slow), "{fault}");
        assert_eq!(treated(tally, Phase::Baseline).arrived, 0);
    }
}

#[tokio::test]
async fn what_is_refused_is_nobodys_unit_and_a_bystander_is_one() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let mut experiment = everybody("latency: { delay: 1s }");
    experiment.slice.treatment = vec!["0%".parse().expect("a share")];
    let mut run = stage.enroll(experiment);
    assert_eq!(stage.front().await.ask("TRACE / HTTP/1.1\r\nhost: a\r\n\r\n").await.status(), 400);
    assert_eq!(stage.front().await.ask(get("/", "")).await.status(), 200);
    assert_eq!(origin.last().field("baggage"), None);
    let tally =
        run.tally("one came", |tally| tally.sum(Phase::Baseline)[Arm::Bystander as usize].decided[0] == 1).await;
    assert_eq!(tally.sum(Phase::Baseline).iter().map(|counts| counts.arrived).sum::<u64>(), 1);
    until("nothing is held", || run.trial.held() == 0).await;
}
