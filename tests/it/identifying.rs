//! How the arm reaches the fault by an id that the application passes on, and where nothing is passed on at all.

use pratfall::measure::{Arm, Note};

use crate::carrying::Street;
use crate::support::{Origin, Run, Stage, experiment, get, listener};

/// A trace id, as W3C Trace Context writes it: field and id.
fn traceparent(trace: u128) -> String {
    format!("traceparent: 00-{trace:032x}-00f067aa0ba902b7-01")
}

impl Street {
    /// Half of the requests treated, half control, carried by something else than the baggage alone.
    fn enroll_by(&self, by: &str, carry: &str) -> Run {
        let mut experiment = experiment("error: { status: 503 }");
        experiment.slice.by = by.parse().expect("a key");
        experiment.slice.carry = carry.parse().expect("a way to carry");
        self.stage.enroll(experiment)
    }

    /// A request with these fields and no others.
    async fn send(&self, listener: &str, fields: &str) -> u16 {
        let fields: String = fields.lines().map(|line| format!("{line}\r\n")).collect();
        self.stage.call(listener).await.ask(get("/", &fields)).await.status()
    }
}

#[tokio::test]
async fn an_id_that_the_application_passes_on_carries_the_arm_and_nothing_is_written_for_it() {
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let came = |text: &str| text.replace("ID", id);
    for (carry, enters, calls, others) in [
        (
            "traceparent",
            "traceparent: 00-ID-00f067aa0ba902b7-01",
            "traceparent: 00-ID-53995c3f42cd8ad8-01",
            "b3: ID-1-1",
        ),
        ("b3", "b3: ID-e457b5a2e4d86bd1-1", "b3: ID-05e3ac9a4f6e3b90-0", "traceparent: 00-ID-53995c3f42cd8ad8-01"),
        ("b3", "X-B3-TraceId: ID\nX-B3-SpanId: e457b5a2e4d86bd1", "b3: ID-05e3ac9a4f6e3b90", "x-request-id: ID"),
        ("header:x-order", "X-Order: order ID", "x-order: order ID", "x-request-id: order ID"),
    ] {
        let street = Street::start(|_| {}).await;
        let mut run = street.enroll_by("trace", carry);
        run.trial.treat(1.0);
        let _injection = run.inject();
        let enters = came(enters);
        assert_eq!(street.send("front", &enters).await, 200);
        let seen = street.front.last();
        let fields = |message: &crate::support::Message| -> Vec<(String, Vec<u8>)> {
            message.fields().into_iter().filter(|(name, _)| name != "host").collect()
        };
        let sent = enters.lines().map(|line| line.split_once(": ").expect("a field"));
        let sent: Vec<_> = sent.map(|(name, value)| (name.to_lowercase(), value.as_bytes().to_vec())).collect();
        assert_eq!(fields(&seen), sent, "{carry}: it leaves as it came");
        assert_eq!(street.send("inventory", &came(calls)).await, 503, "{carry}");
        let of_another = came(calls).replace("4bf9", "5bf9");
        assert_eq!(street.send("inventory", &of_another).await, 200, "{carry}: another trace");
        assert_eq!(street.send("inventory", &came(others)).await, 200, "{carry}: by that alone");
        // The baggage counts for nothing where another way was written.
        let mark = format!("baggage: pratfall={:x}.t.1", run.trial.token);
        assert_eq!(street.send("inventory", &mark).await, 200, "{carry}");
        let carrier = match carry {
            "traceparent" => Note::ByTraceparent,
            "b3" => Note::ByB3,
            _ => Note::ByHeader,
        };
        run.tally("they are counted", |tally| {
            [carrier, Note::CarriedTreatment, Note::Faulted, Note::Uncarried].map(|note| tally.noted(note))
                == [1, 1, 1, 3]
        })
        .await;
    }
}

#[tokio::test]
async fn whatever_arrives_carries_the_arm_and_each_way_is_counted() {
    let street = Street::start(|_| {}).await;
    let mut run = street.enroll_by("request", "auto");
    run.trial.treat(1.0);
    let _injection = run.inject();
    let trace = traceparent(7);
    street.send("front", &format!("{trace}\nx-request-id: r1")).await;
    let mark = street.front.last().field("baggage").expect("auto writes baggage as well");
    for (fields, status) in [
        (format!("baggage: {mark}"), 503),
        (format!("baggage: {mark}\n{}", traceparent(8)), 503),
        (trace.clone(), 503),
        // 64 bits of an id are the same trace.
        (format!("b3: {:016x}-00f067aa0ba902b7-1", 7), 503),
        ("x-request-id: r1".to_owned(), 503),
        (format!("{}\nx-request-id: r1", traceparent(8)), 503),
        (String::new(), 200),
        (format!("{}\nx-request-id: r2", traceparent(8)), 200),
    ] {
        assert_eq!(street.send("inventory", &fields).await, status, "{fields}");
    }
    let by = [Note::ByBaggage, Note::ByTraceparent, Note::ByB3, Note::ByRequestId, Note::Uncarried];
    run.tally("they are counted", |tally| by.map(|note| tally.noted(note)) == [2, 1, 1, 2, 2]).await;
}

#[tokio::test]
async fn the_arm_of_an_id_is_that_of_its_request_on_every_worker_and_control_is_never_faulted() {
    let (front, inventory) = (Origin::well().await, Origin::well().await);
    let stage = Stage::start(vec![listener("front", front.address), listener("inventory", inventory.address)], 2).await;
    let mut met = Vec::new();
    for _ in 0..2 {
        let mut experiment = experiment("error: { status: 503 }");
        experiment.slice.carry = "traceparent".parse().expect("a way to carry");
        let mut run = stage.enroll(experiment);
        let _injection = run.inject();
        // Two connections at a time are on different workers.
        let (mut callers, mut calls) = (
            [stage.front().await, stage.front().await],
            [stage.call("inventory").await, stage.call("inventory").await],
        );
        let mut statuses = Vec::new();
        for n in 1..=60 {
            let fields = format!("{}\r\n", traceparent(n * 0x9e37_79b9_7f4a_7c15));
            callers[n as usize % 2].ask(get("/", &fields)).await;
            statuses.push(calls[n as usize / 2 % 2].ask(get("/", &fields)).await.status());
        }
        let treated = statuses.iter().filter(|status| **status == 503).count() as u64;
        assert!((10..50).contains(&treated), "{treated} of 60");
        let notes = [Note::CarriedTreatment, Note::CarriedControl, Note::Uncarried];
        run.tally("all are told", |tally| notes.map(|note| tally.noted(note)) == [treated, 60 - treated, 0]).await;
        met.push(statuses);
    }
    assert_eq!(met[0], met[1], "the same seed and the same traces");
}

#[tokio::test]
async fn an_id_of_requests_in_several_arms_carries_nothing_and_is_counted() {
    let street = Street::start(|_| {}).await;
    let mut run = street.enroll_by("header:x-user", "auto");
    let _injection = run.inject();
    // Forty users of one trace, each with a request id: both arms are among them.
    let trace = traceparent(7);
    let mut arms = Vec::new();
    for n in 0..40 {
        street.send("front", &format!("{trace}\nx-user: u{n}\nx-request-id: r{n}")).await;
        arms.push(street.front.last().field("baggage").expect("half and half").contains(".t."));
    }
    assert!(arms.contains(&true) && arms.contains(&false));
    assert_eq!(street.send("inventory", &trace).await, 200);
    for (n, treated) in arms.iter().enumerate() {
        let status = street.send("inventory", &format!("{trace}\nx-request-id: r{n}")).await;
        assert_eq!(status, if *treated { 503 } else { 200 }, "the other id says whose it is");
    }
    let treated = arms.iter().filter(|treated| **treated).count() as u64;
    let notes = [Note::Ambiguous, Note::Uncarried, Note::CarriedTreatment, Note::CarriedControl];
    run.tally("it is counted", |tally| notes.map(|note| tally.noted(note)) == [1, 0, treated, 40 - treated]).await;
}

#[tokio::test]
async fn a_bystander_keeps_its_calls_out_of_the_fault_although_it_shares_its_trace() {
    let street = Street::start(|_| {}).await;
    let mut experiment = experiment("error: { status: 503 }");
    experiment.slice.by = "header:x-user".parse().expect("a key");
    experiment.slice.carry = "traceparent".parse().expect("a way to carry");
    experiment.slice.control = pratfall::units::Percent::from_ratio(0.0).expect("a share");
    let mut run = street.stage.enroll(experiment);
    let _injection = run.inject();
    let (mine, shared) = (traceparent(7), traceparent(8));
    run.trial.treat(1.0);
    street.send("front", &format!("{mine}\nx-user: u1")).await;
    street.send("front", &format!("{shared}\nx-user: u1")).await;
    run.trial.treat(0.0);
    street.send("front", &format!("{shared}\nx-user: u2")).await;
    assert_eq!((street.send("inventory", &mine).await, street.send("inventory", &shared).await), (503, 200));
    run.tally("it is counted", |tally| tally.noted(Note::Ambiguous) == 1).await;
}

#[tokio::test]
async fn a_request_that_nothing_can_carry_is_in_no_arm_and_counted() {
    let street = Street::start(|_| {}).await;
    let mut run = street.enroll_by("request", "traceparent");
    for fields in ["", "x-request-id: r1", "traceparent: 00-00000000000000000000000000000000-00f067aa0ba902b7-01"] {
        street.send("front", fields).await;
    }
    street.send("front", &traceparent(7)).await;
    run.tally("they are counted", |tally| {
        let sums = tally.sum(pratfall::measure::Phase::Baseline);
        tally.noted(Note::NoId) == 3 && sums.iter().map(|counts| counts.arrived).sum::<u64>() == 1
    })
    .await;
}

#[tokio::test]
async fn an_external_upstream_can_be_measured_by_ids_that_are_not_ours() {
    let (outside, inventory) = (Origin::well().await, Origin::well().await);
    let mut front = listener("front", outside.address);
    front.external = true;
    let stage = Stage::start(vec![front, listener("inventory", inventory.address)], 1).await;
    let mut experiment = experiment("error: { status: 503 }");
    experiment.slice.by = "request".parse().expect("a key");
    let run = stage.enroll(experiment);
    run.trial.treat(1.0);
    let _injection = run.inject();
    let trace = format!("{}\r\n", traceparent(7));
    stage.front().await.ask(get("/", &trace)).await;
    assert_eq!(outside.last().field("baggage"), None);
    assert_eq!(stage.call("inventory").await.ask(get("/", &trace)).await.status(), 503);
}

#[tokio::test]
async fn metadata_of_grpc_over_http2_carry_the_arm_as_fields_do() {
    use crate::support::h2::{H2Origin, nothing};
    let inventory = H2Origin::replying(|_| async { http::Response::new(nothing()) }).await;
    let front = H2Origin::replying(|_| async { http::Response::new(nothing()) }).await;
    let mut listeners = vec![listener("front", front.address), listener("inventory", inventory.address)];
    for listener in &mut listeners {
        listener.upstream.as_mut().expect("it has one").scheme = pratfall::proxy::config::Scheme::H2c;
    }
    let stage = Stage::start(listeners, 1).await;
    let mut experiment = experiment("error: { status: 503 }");
    experiment.slice.carry = "b3".parse().expect("a way to carry");
    let run = stage.enroll(experiment);
    run.trial.treat(1.0);
    let _injection = run.inject();
    let call = |uri: &str| {
        let request = http::Request::post(format!("http://shop.example{uri}"))
            .header("content-type", "application/grpc")
            .header("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1");
        request.body(nothing()).expect("a request")
    };
    let front_answer = stage.h2("front").await.send(call("/shop.Search/Find")).await.expect("an answer");
    assert_eq!(front_answer.status(), 200);
    assert!(!front.last().headers.contains_key("baggage"));
    let answer = stage.h2("inventory").await.send(call("/shop.Ranker/Rank")).await.expect("an answer");
    assert_eq!(answer.status(), 503);
}

#[tokio::test]
async fn where_nothing_is_carried_calls_are_drawn_at_the_fault_and_everybody_is_measured_elsewhere() {
    use crate::support::stage::matching;
    use pratfall::measure::Phase;
    let street = Street::start(|_| {}).await;
    let mut experiment = experiment("error: { status: 503 }");
    experiment.slice.carry = pratfall::experiment::Carry::None;
    experiment.slice.by = "request".parse().expect("a key");
    experiment.slice.at = "inventory".to_owned();
    experiment.slice.matches = matching("/stock/**");
    let places = (street.stage.proxy.find("front").unwrap().0, street.stage.proxy.find("inventory").unwrap().0);
    let mut run = street.stage.enroll_with(experiment, |terms| terms.places = places);
    let mut call = street.stage.call("inventory").await;
    for target in ["/stock/1"; 10] {
        assert_eq!(call.ask(get(target, "")).await.status(), 200, "that was baseline");
    }
    let _injection = run.inject();
    let mut front = street.stage.front().await;
    for n in 0..20 {
        let sent = get("/", &format!("baggage: a=1\r\nx-n: {n}\r\n"));
        assert_eq!(front.ask(&sent).await.status(), 200, "nobody meets a fault here");
        assert_eq!(String::from_utf8_lossy(&street.front.last().head), String::from_utf8_lossy(&sent), "as it came");
    }
    let mut met = 0;
    for _ in 0..80 {
        met += u64::from(call.ask(get("/stock/1", "")).await.status() == 503);
        assert_eq!(call.ask(get("/other", "")).await.status(), 200, "another call");
    }
    // Five standard errors of a binomial with n = 80.
    assert!(met.abs_diff(40) <= 22, "{met}");
    let notes = [Note::CarriedTreatment, Note::CarriedControl, Note::Eligible, Note::Faulted, Note::Uncarried];
    let tally = run.tally("all are counted", |tally| {
        let counts = tally.sum(Phase::Inject)[Arm::Treatment as usize];
        notes.map(|note| tally.noted(note)) == [met, 80 - met, met, met, 0] && counts.decided[0] == 20
    });
    let tally = tally.await;
    let sums = tally.sum(Phase::Inject);
    assert_eq!((sums[0].arrived, sums[0].bad[0], sums[1].arrived, sums[2].arrived), (20, 0.0, 0, 0));
    assert_eq!(tally.sum(Phase::Baseline)[0].arrived, 0, "the calls themselves are not measured");
}
