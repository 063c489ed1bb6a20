//! How the arm travels in the baggage, and where it does not.

use pratfall::experiment::ByHand;
use pratfall::measure::{Arm, Note};
use pratfall::proxy::config::Scheme;

use crate::support::h2::whole;
use crate::support::stage::target;
use crate::support::{H2Origin, Origin, Run, Stage, everybody, experiment, get, listener, ok};

/// `front`, `between`, `inventory` and an `external` one, each before an upstream of its own.
pub(crate) struct Street {
    pub(crate) stage: Stage,
    pub(crate) front: Origin,
    pub(crate) between: Origin,
    pub(crate) inventory: Origin,
    pub(crate) external: Origin,
}

impl Street {
    pub(crate) async fn start(change: impl FnOnce(&mut pratfall::proxy::ListenerConfig)) -> Self {
        let (front, between, inventory, external) =
            (Origin::well().await, Origin::well().await, Origin::well().await, Origin::well().await);
        let mut listeners = vec![
            listener("front", front.address),
            listener("between", between.address),
            listener("inventory", inventory.address),
            listener("external", external.address),
        ];
        listeners[3].external = true;
        change(&mut listeners[1]);
        Self { stage: Stage::start(listeners, 1).await, front, between, inventory, external }
    }

    fn enroll(&self, fault: &str) -> Run {
        let mut experiment = everybody(fault);
        experiment.inject.at = "inventory".to_owned();
        self.stage.enroll(experiment)
    }

    /// What is put before other members at the slice.
    async fn mark(&self) -> String {
        self.stage.front().await.ask(get("/", "")).await;
        self.front.last().field("baggage").expect("everybody is treated")
    }

    async fn ask(&self, listener: &str, baggage: &str) -> u16 {
        let fields: String = baggage.lines().map(|line| format!("baggage: {line}\r\n")).collect();
        self.stage.call(listener).await.ask(get("/", &fields)).await.status()
    }
}

#[tokio::test]
async fn our_member_is_the_first_and_the_others_stay_byte_for_byte() {
    let street = Street::start(|_| {}).await;
    let run = street.enroll("error: { status: 503 }");
    for (before, others) in [
        ("", ""),
        ("a=1", "a=1"),
        ("tenant=acme ; p=1,b=%20x\t, c=3", "tenant=acme ; p=1,b=%20x\t, c=3"),
        ("a=1\nb=2", "a=1,b=2"),
        ("a=1,pratfall=1.t.2,b=2", "a=1,b=2"),
        ("pratfall=1.c.2\npratfall=1.t.2;x=1", ""),
    ] {
        assert_eq!(street.ask("front", before).await, 200);
        let baggage = street.front.last().field("baggage").expect("a line of ours");
        let (ours, rest) = baggage.split_once(',').unwrap_or((&baggage, ""));
        assert!(ours.starts_with(&format!("pratfall={:x}.t.", run.trial.token)), "{baggage}");
        assert_eq!(rest, others, "{before:?}");
        assert_eq!(baggage.matches("pratfall").count(), 1);
    }
}

/// One connection after the other: each answers, and ends at the second request without a word.
async fn ending_at_the_second() -> Origin {
    Origin::scripted(|mut visit| async move {
        visit.request().await.expect("the first");
        visit.wire.send(ok("hello")).await;
        let _ = visit.request().await;
    })
    .await
}

#[tokio::test]
async fn our_member_goes_up_by_whatever_way_a_request_does() {
    let (well, ending) = (Origin::well().await, ending_at_the_second().await);
    let h2 = H2Origin::replying(|_| async { http::Response::new(whole("hello")) }).await;
    let mut cased = listener("cased", well.address);
    cased.keep_case = true;
    let mut shared = listener("shared", h2.address);
    shared.upstream = Some(target(Scheme::H2c, h2.address));
    let listeners = vec![listener("front", well.address), cased, shared, listener("ending", ending.address)];
    let stage = Stage::start([listeners, vec![listener("inventory", well.address)]].concat(), 1).await;
    let enroll = |at: &str| {
        let mut experiment = everybody("error: { status: 503 }");
        (experiment.slice.at, experiment.inject.at) = (at.to_owned(), "inventory".to_owned());
        stage.enroll(experiment)
    };
    let upload = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx";
    let upgrade = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, baggage\r\nupgrade: websocket\r\n\r\n";
    let listed = get("/", "connection: baggage\r\n");
    let stale = get("/", "connection: baggage\r\nbaggage: pratfall=1.t.2\r\n");
    let plain = get("/", "");
    for (at, request) in [
        ("front", &plain[..]),         // on a line of its own
        ("front", &plain),             // on the same again
        ("front", upload.as_bytes()),  // by hyper
        ("front", &plain),             // on the connection that hyper has now
        ("front", upgrade.as_bytes()), // as an upgrade, which is declined
        ("front", &listed),            // nobody can have it taken off
        ("front", &stale),
        ("cased", &plain),
        ("shared", &plain),
        ("shared", upload.as_bytes()),
        ("ending", &plain),
        ("ending", &plain), // which is sent again, on another connection
    ] {
        let run = enroll(at);
        assert_eq!(stage.call(at).await.ask(request).await.status(), 200, "{at}");
        let all = match at {
            "shared" => {
                h2.last().headers.get_all("baggage").iter().map(|line| line.to_str().unwrap().to_owned()).collect()
            }
            "ending" => ending.last().all("baggage"),
            _ => well.last().all("baggage"),
        };
        let [ours] = &all[..] else { panic!("{at}: {all:?}") };
        assert!(ours.starts_with(&format!("pratfall={:x}.t.", run.trial.token)), "{at}: {ours}");
    }
    assert_eq!(ending.connections(), 2, "the last was sent again");
}

#[tokio::test]
async fn a_baggage_without_room_stays_as_it_is_and_its_request_is_in_no_arm() {
    let street = Street::start(|_| {}).await;
    let mut run = street.enroll("error: { status: 503 }");
    let full = (0..64).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
    street.ask("front", &full).await;
    assert_eq!(street.front.last().field("baggage"), Some(full));
    let tally = run.tally("it is noted", |tally| tally.noted(Note::NoRoom) == 1).await;
    assert_eq!(tally.sum(pratfall::measure::Phase::Baseline)[Arm::Treatment as usize].arrived, 0);
}

#[tokio::test]
async fn members_of_ours_from_outside_are_taken_off_while_a_run_is_live_and_only_then() {
    let foreign = "a=1, pratfall=1.t.2;x=1 ,b=2";
    let street = Street::start(|_| {}).await;
    let origins = [
        ("front", &street.front),
        ("between", &street.between),
        ("inventory", &street.inventory),
        ("external", &street.external),
    ];
    for (name, origin) in origins {
        street.ask(name, foreign).await;
        assert_eq!(origin.last().field("baggage").as_deref(), Some(foreign), "{name}: no run is live");
    }
    let run = street.enroll("error: { status: 503 }");
    for (name, origin) in origins {
        street.ask(name, foreign).await;
        let left = origin.last().field("baggage").expect("other members stay");
        match name {
            "front" => assert!(left.ends_with(",a=1,b=2"), "{left}"),
            "inventory" => assert_eq!(left, foreign, "the fault's own listener"),
            _ => assert_eq!(left, "a=1,b=2", "{name}"),
        }
    }
    drop(run.enrolled);
    for (name, origin) in origins {
        street.ask(name, foreign).await;
        assert_eq!(origin.last().field("baggage").as_deref(), Some(foreign), "{name}: the run is over");
    }
}

#[tokio::test]
async fn a_listener_between_the_two_passes_the_mark_on_where_it_says_so() {
    for trusts in [false, true] {
        let street = Street::start(|between| between.trust_baggage = trusts).await;
        let _run = street.enroll("error: { status: 503 }");
        let mark = street.mark().await;
        street.ask("between", &mark).await;
        assert_eq!(street.between.last().field("baggage"), trusts.then_some(mark));
    }
}

#[tokio::test]
async fn nothing_of_ours_goes_to_an_upstream_of_somebody_else() {
    let origin = Origin::well().await;
    let inside = Origin::well().await;
    // The fault is before an external upstream: the mark counts there, and goes no further.
    let mut outside = listener("inventory", origin.address);
    outside.external = true;
    outside.trust_baggage = true;
    let stage = Stage::start(vec![listener("front", inside.address), outside.clone()], 1).await;
    let mut experiment = everybody("latency: { delay: 1ms }");
    experiment.inject.at = "inventory".to_owned();
    let mut run = stage.enroll(experiment);
    let _injection = run.inject();
    stage.front().await.ask(get("/", "")).await;
    let mark = inside.last().field("baggage").unwrap();
    let fields = format!("baggage: a=1,{mark}\r\n");
    assert_eq!(stage.call("inventory").await.ask(get("/", &fields)).await.status(), 200);
    assert_eq!(origin.last().field("baggage").as_deref(), Some("a=1"));
    run.tally("it met the fault", |tally| tally.noted(Note::Faulted) == 1).await;

    // Slice and fault both there: it is measured and faulted, and nothing is written.
    outside.name = "front".to_owned();
    let stage = Stage::start(vec![outside], 1).await;
    let mut run = stage.enroll(everybody("latency: { delay: 1ms }"));
    let _injection = run.inject();
    stage.front().await.ask(get("/", "")).await;
    assert_eq!(origin.last().field("baggage"), None);
    run.tally("it met the fault", |tally| tally.noted(Note::Faulted) == 1).await;
}

#[tokio::test]
async fn only_the_treatment_of_this_very_run_meets_the_fault() {
    let street = Street::start(|_| {}).await;
    let mut run = street.enroll("error: { status: 503 }");
    let _injection = run.inject();
    let mark = street.mark().await;
    let (token, op) = mark.strip_prefix("pratfall=").unwrap().split_once(".t.").unwrap();
    assert_eq!(street.ask("inventory", &mark).await, 503);
    assert_eq!(street.ask("inventory", &format!("a=1,{mark};ttl=1,b=2")).await, 503);
    for other in [
        String::new(),
        format!("pratfall={token}.c.{op}"),
        format!("pratfall={:x}.t.{op}", run.trial.token ^ 1),
        format!("pratfall={token}.t"),
        format!("pratfall={token}.x.{op}"),
        format!("Pratfall={token}.t.{op}"),
        format!("xpratfall={token}.t.{op}"),
    ] {
        assert_eq!(street.ask("inventory", &other).await, 200, "{other}");
    }
    run.tally("all are counted", |tally| {
        let notes = [Note::CarriedTreatment, Note::CarriedControl, Note::Uncarried].map(|note| tally.noted(note));
        notes == [2, 1, 6]
    })
    .await;
}

#[tokio::test]
async fn control_is_measured_and_never_faulted() {
    let street = Street::start(|_| {}).await;
    let mut run = street.stage.enroll(experiment("error: { status: 503 }"));
    let _injection = run.inject();
    let (mut treated, mut control) = (0, 0);
    for n in 0..60 {
        street.stage.front().await.ask(get("/", &format!("x-request-id: r{n}\r\n"))).await;
        let mark = street.front.last().field("baggage").expect("half and half");
        let status = street.ask("inventory", &mark).await;
        match mark.contains(".t.") {
            true => treated += u64::from(status == 503),
            false => control += u64::from(status == 200),
        }
    }
    assert_eq!(treated + control, 60, "each met what its arm says");
    assert!(treated > 10 && control > 10);
    let tally = run.tally("all are over", |tally| {
        tally.sum(pratfall::measure::Phase::Inject).iter().map(|counts| counts.decided[0]).sum::<u64>() == 60
    });
    let sums = tally.await.sum(pratfall::measure::Phase::Inject);
    assert_eq!((sums[Arm::Treatment as usize].arrived, sums[Arm::Control as usize].arrived), (treated, control));
}

#[tokio::test]
async fn a_fault_by_hand_carries_nothing_and_lets_the_context_of_another_run_through() {
    for trusts in [true, false] {
        let street = Street::start(|between| between.trust_baggage = trusts).await;
        let _run = street.enroll("error: { status: 503 }");
        let mark = street.mark().await;
        let asked = "at: between\nmatch: { path: / }\nfaults: [{ latency: { delay: 1ms } }]\nshare: 100%\n";
        let by_hand = ByHand::parse("by hand", asked).unwrap_or_else(|problems| panic!("{problems}"));
        let experiment = by_hand.experiment(&["front"]).unwrap_or_else(|problems| panic!("{problems}"));
        let mut by_hand = street.stage.enroll(experiment);
        let injection = by_hand.inject();
        street.ask("between", &format!("{mark},a=1")).await;
        let left = street.between.last().field("baggage").expect("other members stay");
        assert_eq!(left, if trusts { format!("{mark},a=1") } else { "a=1".to_owned() });
        by_hand.tally("it is faulted", |tally| tally.noted(Note::Faulted) == 1).await;
        drop(injection);
    }
}

#[tokio::test]
async fn a_rehearsal_sees_each_call_where_it_comes_and_whose_it_is() {
    let street = Street::start(|_| {}).await;
    let mut run = street.enroll("error: { status: 503 }");
    street.mark().await;
    assert!(run.tally.sightings.is_empty(), "a run looks for nobody");
    run.trial.look_everywhere();
    let traced = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";
    street.stage.front().await.ask(get("/", traced)).await;
    let mark = street.front.last().field("baggage").expect("everybody is treated");
    let both = format!("{traced}baggage: {mark}\r\n");
    street.stage.call("between").await.ask(get("/a", &both)).await;
    street.stage.call("inventory").await.ask(get("/a", traced)).await;
    let tally = run.tally("three are seen", |tally| tally.sightings.len() == 3).await;
    let mut seen = tally.sightings.clone();
    seen.sort_by_key(|call| call.listener);
    let [front, between, inventory] = seen.as_slice() else { panic!("three") };
    assert!(front.of.is_some() && between.of == front.of && inventory.of.is_none());
    assert_eq!(
        front.ids.map(|id| id.map(|id| (id.by, id.carries))),
        [Some((Note::ByTraceparent, true)), None, None, None]
    );
    assert!(between.ids == front.ids && inventory.ids == front.ids, "one trace");
    assert!(between.call == inventory.call && between.call != front.call, "the same call is another attempt");
    assert!(seen.iter().all(|call| call.arrived <= call.left));
}

#[tokio::test]
async fn of_two_rehearsals_at_once_each_sees_every_call() {
    let street = Street::start(|_| {}).await;
    let first = street.enroll("error: { status: 503 }");
    let mut elsewhere = experiment("error: { status: 503 }");
    elsewhere.slice.at = "between".to_owned();
    let second = street.stage.enroll(elsewhere);
    for run in [&first, &second] {
        run.trial.look_everywhere();
    }
    for at in ["front", "between", "inventory"] {
        street.stage.call(at).await.ask(get("/", "")).await;
    }
    for mut run in [first, second] {
        let tally = run.tally("all are seen", |tally| tally.sightings.len() == 3).await;
        let mut seen: Vec<usize> = tally.sightings.iter().map(|call| call.listener).collect();
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2]);
    }
}
