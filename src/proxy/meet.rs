//! A treated call meets the fault, or is spared for a reason that is counted.

use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header::{CONNECTION, EXPECT, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode, Version};
use http_body::Body as _;
use tokio::time::Instant;
use tower::{Service, ServiceExt, service_fn};

use super::answer::MARK;
use super::fail_open::{self, Kept};
use super::injecting::Injecting;
use super::pass::{Here, Next};
use super::trial::{Held, Trial};
use super::upload;
use super::wire::Socket;
use crate::fault::{self, Arrived, Draw, Fault, Injected, Once, Outlet, Spared, Testimony, Tunnel, Witness};
use crate::measure::operation::{Event, Met};
use crate::measure::{Arm, Note, Phase, Recorder};
use crate::service::{Body, Cut, Error, Origin, Watch};

/// How often the same call of an operation was seen. Bounded: all of it is forgotten when it is full.
#[derive(Debug, Default)]
pub(super) struct Attempts(HashMap<(u128, u64), u32>);

/// Distinct calls that are remembered: 6 MiB at the most.
const MOST: usize = 100_000;

impl Attempts {
    pub(super) fn next(&mut self, op: u128, call: u64) -> u32 {
        if self.0.len() >= MOST {
            self.0.clear();
        }
        let attempts = self.0.entry((op, call)).or_default();
        *attempts += 1;
        *attempts
    }
}

/// A treated call of an operation that arrived while the fault was on.
pub(super) struct Meeting {
    trial: Arc<Trial>,
    recorder: Rc<Recorder>,
    op: u128,
}

impl Meeting {
    /// Nothing for control, nor for an operation that arrived before the fault was on, or after: it is none of its business.
    pub(super) fn of(trial: &Arc<Trial>, recorder: Rc<Recorder>, arm: Arm, op: u128) -> Option<Self> {
        let meets = arm == Arm::Treatment && phase_of(op) == Some(Phase::Inject);
        meets.then(|| Self { trial: trial.clone(), recorder, op })
    }
}

/// Lets a call meet the fault if it is meant, and tells what it met.
pub(super) async fn meet(
    here: &Here<'_>,
    meeting: Meeting,
    mut request: Request<Body>,
    next: Next,
) -> Result<Response<Body>, Error> {
    let Meeting { trial, recorder, op } = meeting;
    let (trial, recorder) = (&trial, &recorder);
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    let call = trial.chance.bits("call", format!("{} {target}", request.method()).as_bytes());
    let mut news = News {
        recorder: recorder.clone(),
        op,
        call,
        unsafe_method: !request.method().is_safe(),
        witness: Witness::default(),
        uncertain: None,
        told: false,
    };
    let injecting = match trial.guarded(|| Some(chosen(here, trial, recorder, op, call, &request))) {
        None | Some(Ok(None)) => {
            news.tell(Met::Nothing);
            return next(request).await;
        }
        Some(Ok(Some(injecting))) => injecting,
        Some(Err(why)) => {
            recorder.note(why);
            news.tell(Met::Nothing);
            return next(request).await;
        }
    };
    let Chosen { on, draw } = injecting;
    if on.sends_away || on.calls.iter().any(Fault::meets_every_call) {
        recorder.note(Note::Faulted);
        trial.meets(on.kinds());
    } else {
        news.uncertain = Some(Uncertain { trial: trial.clone(), on: on.clone(), caller: here.caller });
    }
    let held = trial.hold();
    news.witness = Witness::in_turn(on.release.clone(), draw.uniform(RELEASE));
    let (version, unread) = (request.version(), !request.body().is_end_stream());
    let (shared, upgrades) = (version >= Version::HTTP_2, request.headers().contains_key(UPGRADE));
    let waits = upgrades || request.headers().contains_key(EXPECT);
    // The caller's own standing still is told from a fault's, which may have the body wait as long as it likes.
    request.body_mut().stall_after(here.config.timeouts.body_stall.get());
    let (kept, mut request) = Kept::of(request);
    let extensions = request.extensions_mut();
    extensions.insert(Arrived(Instant::now()));
    extensions.insert(draw);
    extensions.insert(news.witness.clone());
    let tunnel = Tunnel::default();
    if upgrades {
        extensions.insert(tunnel.clone());
    }
    if let Some(socket) = here.socket.cloned() {
        extensions.insert(Outlet::new(move || if shared { socket.has_taken_all() } else { socket.has_let_all_go() }));
    }
    let (called, onward, run) = (kept.called(), next.clone(), trial.clone());
    let upstream = service_fn(move |mut request| {
        called.now(&run, &mut request);
        onward(request)
    });
    let faulted = fail_open::caught(trial, async {
        fault::stack(&on.calls, Once::new(upstream), &on.stop).ready().await?.call(request).await
    });
    let result = match here.socket.filter(|_| unread && !shared) {
        Some(socket) => tokio::select! {
            biased;
            result = faulted => result,
            () = socket.closed() => return Err(Error::Gone),
        },
        None => faulted.await,
    };
    let mut result = match (result, kept) {
        (Some(Ok(mut response)), kept) if unread && !shared && response.extensions().get::<Injected>().is_some() => {
            upload::unwanted(kept.body(), waits, response.headers_mut());
            Ok(response)
        }
        (Some(result), _) => result,
        (None, kept) => match kept.back() {
            Some(request) => {
                news.tell(Met::Nothing);
                return next(request).await;
            }
            None => Err(Error::Failed),
        },
    };
    if let Ok(response) = &mut result {
        fail_open::guard(trial, response.body_mut());
        if on.sends_away {
            send_away(here, version, response);
        }
    }
    let result = match result {
        result if on.calls.is_empty() => {
            news.tell(Met::SentAway);
            result
        }
        Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS && tunnel.is_treated() => {
            let mut tale = Tale { news: Some(news), socket: None, _held: held };
            tokio::task::spawn_local(async move {
                tunnel.ended().await;
                tale.end(Ok(()));
            });
            Ok(response)
        }
        Ok(mut response) if news.witness.hear().awaited && !response.body().is_end_stream() => {
            let socket = here.socket.filter(|_| !shared).cloned();
            let mut tale = Tale { news: Some(news), socket, _held: held };
            // What a fault made up is known by its head.
            if response.extensions().get::<Injected>().is_some() {
                let met = Met::Error(response.status().as_u16());
                tale.news.take().into_iter().for_each(|news| news.tell(met));
            }
            response.body_mut().watch(tale);
            Ok(response)
        }
        result => {
            let met = news.met(&result);
            news.tell(met);
            result
        }
    };
    result.map(|mut response| {
        if let Some(Injected(kind)) = response.extensions().get().copied()
            && here.config.mark
            && let Ok(value) = HeaderValue::try_from(format!("{}; fault={kind}", trial.run))
        {
            response.headers_mut().insert(MARK, value);
        }
        response
    })
}

/// Has the connection of an answer end behind it: what else is under way on it is finished.
fn send_away(here: &Here<'_>, version: Version, response: &mut Response<Body>) {
    if version < Version::HTTP_2 {
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    } else if let Some(socket) = here.socket {
        here.worker.watchdog.send_away(socket);
    }
}

/// A fault that a call is to meet.
struct Chosen {
    on: Arc<Injecting>,
    draw: Draw,
}

fn chosen(
    here: &Here<'_>,
    trial: &Trial,
    recorder: &Recorder,
    op: u128,
    call: u64,
    request: &Request<Body>,
) -> Result<Option<Chosen>, Note> {
    let inject = &trial.experiment.inject;
    let on = trial.injecting.load_full().ok_or(Note::SparedEnded)?;
    if !on.meets_calls() {
        return Ok(None);
    }
    if !inject.matches.matches(request, Some(here.caller)) {
        return Err(Note::SparedNoMatch);
    }
    if trial.limits.protects(&inject.at, request.uri().path()) {
        return Err(Note::SparedProtected);
    }
    // Where it is the slice too, those in an arm were chosen knowingly.
    if trial.slice_at != trial.inject_at && trial.spares_probe(here.listener, request) {
        return Err(Note::SparedProbe);
    }
    let draw = drawn(trial, recorder, op, call)?;
    let spared = on.calls.iter().map(|fault| fault.spares(request)).collect::<Option<Vec<_>>>();
    if let Some(why) = spared.and_then(|all| all.first().copied()) {
        return Err(note(why));
    }
    allowed(trial, here.caller)?;
    Ok(Some(Chosen { on, draw }))
}

/// Counts another attempt of a call or a connection that is meant, and tells what its faults draw from, if it is to meet them.
pub(super) fn drawn(trial: &Trial, recorder: &Recorder, op: u128, call: u64) -> Result<Draw, Note> {
    let inject = &trial.experiment.inject;
    recorder.note(Note::Eligible);
    let attempt = trial.attempts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next(op, call);
    if inject.attempts.is_some_and(|most| attempt > most) {
        return Err(Note::SparedAttempts);
    }
    let draw = draw(trial, op, call, attempt);
    if inject.share.ratio() < 1.0 && crate::chance::unit(draw ^ SHARE) >= inject.share.ratio() {
        return Err(Note::SparedShare);
    }
    Ok(Draw(draw))
}

/// Takes what a fault costs: a place among those who are held, and one of the budget.
pub(super) fn allowed(trial: &Trial, caller: IpAddr) -> Result<(), Note> {
    if trial.held.load(Ordering::Relaxed) >= trial.limits.max_held() {
        return Err(Note::SparedLimit);
    }
    if trial.budget.spend(caller) { Ok(()) } else { Err(Note::SparedBudget) }
}

fn note(why: Spared) -> Note {
    match why {
        Spared::NotRepeatable => Note::SparedNotRepeatable,
        Spared::TooLarge => Note::SparedTooLarge,
        Spared::BelowLimit => Note::SparedBelowLimit,
        Spared::TooMany => Note::SparedLimit,
    }
}

/// Tells the draw of the share from the draws of the faults themselves.
const SHARE: u64 = 0x5348_4152_4553_4841;

/// The draw of a held call's place among those that are let go; faults draw with their places in the list.
const RELEASE: u64 = 0x5245_4c45_4153_4521;

/// What a call draws from: its key, what it calls, and which attempt it is; never the time or the order of arrival.
fn draw(trial: &Trial, op: u128, call: u64, attempt: u32) -> u64 {
    let key = (op >> 64) as u64;
    let mut what = [0; 20];
    what[..8].copy_from_slice(&key.to_be_bytes());
    what[8..16].copy_from_slice(&call.to_be_bytes());
    what[16..].copy_from_slice(&attempt.to_be_bytes());
    trial.chance.bits("draw", &what)
}

/// The phase in which an operation arrived: it is part of its number.
fn phase_of(op: u128) -> Option<Phase> {
    Phase::ALL.into_iter().find(|phase| *phase as u128 == op & 0xff)
}

/// A call that may meet its faults or not: what they share, what they change, or whether it has a body decides.
struct Uncertain {
    trial: Arc<Trial>,
    on: Arc<Injecting>,
    caller: IpAddr,
}

impl Uncertain {
    /// What to note, now that it is known what the call met; who met nothing gives back what it took of the budget.
    fn settle(&self, met: Met, testimony: &Testimony) -> Note {
        let Self { trial, on, caller } = self;
        if met != Met::Nothing {
            trial.meets(on.kinds());
            return Note::Faulted;
        }
        trial.budget.give_back(*caller);
        let bodies = on.calls.iter().any(Fault::meets_bodies);
        match testimony.spared {
            Some(why) => note(why),
            None if bodies && !on.stop.is_cancelled() => Note::SparedNoBody,
            None => Note::SparedEnded,
        }
    }
}

/// What there is to tell about a call; dropped before it was told, the caller left.
struct News {
    recorder: Rc<Recorder>,
    op: u128,
    call: u64,
    unsafe_method: bool,
    witness: Witness,
    /// Where not every call that comes here meets the fault: the witness knows which do.
    uncertain: Option<Uncertain>,
    told: bool,
}

impl News {
    fn met(&self, result: &Result<Response<Body>, Error>) -> Met {
        let Testimony { asked, waited, released, torn, .. } = self.witness.hear();
        match (asked, waited, result) {
            (Some((asked, _)), Some(applied), _) => Met::Waited { asked, applied },
            _ if released => Met::Released,
            _ if torn => Met::Cut,
            (_, _, Ok(response)) if response.extensions().get::<Injected>().is_some() => {
                Met::Error(response.status().as_u16())
            }
            (_, _, Err(error)) if error.origin() == Origin::Injected => Met::Cut,
            _ => self.passed(),
        }
    }

    /// What became of a call that went on to the upstream.
    fn passed(&self) -> Met {
        let Testimony { met, changed, .. } = self.witness.hear();
        if self.uncertain.is_none() || met || changed { Met::Changed } else { Met::Nothing }
    }

    /// What it met, when its answer's body is over.
    fn met_at_the_end(&self) -> Met {
        match self.witness.hear() {
            Testimony { waited: Some(applied), asked: Some((asked, _)), .. } => Met::Waited { asked, applied },
            Testimony { released: true, .. } => Met::Released,
            Testimony { torn: true, .. } => Met::Cut,
            Testimony { asked: Some((asked, since)), .. } => Met::Left { asked, after: since.elapsed() },
            _ => self.passed(),
        }
    }

    fn tell(mut self, met: Met) {
        self.say(met);
    }

    fn say(&mut self, met: Met) {
        self.told = true;
        if let Some(uncertain) = &self.uncertain {
            self.recorder.note(uncertain.settle(met, &self.witness.hear()));
        }
        let Self { op, call, unsafe_method, .. } = *self;
        self.recorder.tell(Event::Call { op, call, unsafe_method, met });
    }
}

impl Drop for News {
    fn drop(&mut self) {
        if self.told {
            return;
        }
        self.say(self.met_at_the_end());
    }
}

/// What there is to tell about a call when its answer's body is over. Dropped before that, the caller left.
struct Tale {
    news: Option<News>,
    /// What ends with an RST where the body does.
    socket: Option<Socket>,
    _held: Held,
}

impl Watch for Tale {
    fn end(&mut self, result: Result<(), &Error>) {
        if let (Err(Error::Injected(Cut::Reset, _)), Some(socket)) = (result, &self.socket) {
            socket.reset();
        }
        if let Some(news) = self.news.take() {
            let met = news.met_at_the_end();
            news.tell(met);
        }
    }
}
