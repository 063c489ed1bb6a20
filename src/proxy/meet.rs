//! A treated call meets the fault, or is spared for a reason that is counted.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use http_body::Body as _;
use tokio::time::Instant;
use tower::{Service, ServiceExt, service_fn};

use super::answer::MARK;
use super::fail_open::{self, Kept};
use super::injecting::Injecting;
use super::trial::{Here, Next, Trial};
use crate::fault::{self, Arrived, Draw, Injected, Once, Testimony, Witness};
use crate::measure::operation::{Event, Met};
use crate::measure::{Arm, Note, Phase, Recorder};
use crate::service::{Body, Error};

/// How often the same call of an operation was seen. Bounded: the oldest half is forgotten when it is full.
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

/// Lets a call meet the fault if it is meant, and tells what it met.
pub(super) async fn meet(
    here: &Here<'_>,
    trial: &Arc<Trial>,
    recorder: &Rc<Recorder>,
    arm: Arm,
    op: u128,
    request: Request<Body>,
    next: Next,
) -> Result<Response<Body>, Error> {
    if arm != Arm::Treatment {
        return next(request).await;
    }
    // An operation that arrived before the fault was on, or after, is none of its business.
    if phase_of(op) != Some(Phase::Inject) {
        return next(request).await;
    }
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    let call = trial.chance.bits("call", format!("{} {target}", request.method()).as_bytes());
    let mut news = News {
        recorder: recorder.clone(),
        op,
        call,
        unsafe_method: !request.method().is_safe(),
        witness: Witness::default(),
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
    let Chosen { on, attempt } = injecting;
    recorder.note(Note::Faulted);
    trial.meets(on.kinds());
    let _held = trial.hold();
    let draw = Draw(draw(trial, op, call, attempt));
    news.witness = Witness::in_turn(on.release.clone(), draw.uniform(RELEASE));
    let (version, unread) = (request.version(), !request.body().is_end_stream());
    let (kept, mut request) = Kept::of(request);
    let extensions = request.extensions_mut();
    extensions.insert(Arrived(Instant::now()));
    extensions.insert(draw);
    extensions.insert(news.witness.clone());
    let (called, onward, run) = (kept.called(), next.clone(), trial.clone());
    let upstream = service_fn(move |mut request| {
        called.now(&run, &mut request);
        onward(request)
    });
    let faulted = fail_open::caught(trial, async {
        fault::stack(&on.calls, Once::new(upstream), &on.stop).ready().await?.call(request).await
    });
    let result = match here.socket.filter(|_| unread && version < Version::HTTP_2) {
        Some(socket) => tokio::select! {
            biased;
            result = faulted => result,
            () = socket.closed() => return Err(Error::Gone),
        },
        None => faulted.await,
    };
    let mut result = match (result, kept) {
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
    let met = if on.calls.is_empty() { Met::SentAway } else { news.met(&result) };
    news.tell(met);
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
    attempt: u32,
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
    recorder.note(Note::Eligible);
    let attempt = trial.attempts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next(op, call);
    if inject.attempts.is_some_and(|most| attempt > most) {
        return Err(Note::SparedAttempts);
    }
    if inject.share.ratio() < 1.0 && crate::chance::unit(draw(trial, op, call, attempt) ^ SHARE) >= inject.share.ratio()
    {
        return Err(Note::SparedShare);
    }
    if trial.held.load(Ordering::Relaxed) >= trial.limits.max_held() {
        return Err(Note::SparedLimit);
    }
    if !trial.budget.spend(here.caller) {
        return Err(Note::SparedBudget);
    }
    Ok(Some(Chosen { on, attempt }))
}

/// Tells the draw of the share from the draws of the faults themselves.
pub(super) const SHARE: u64 = 0x5348_4152_4553_4841;

/// The draw of a held call's place among those that are let go; faults draw with their places in the list.
const RELEASE: u64 = 0x5245_4c45_4153_4521;

/// What a call draws from: its key, what it calls, and which attempt it is; never the time or the order of arrival.
pub(super) fn draw(trial: &Trial, op: u128, call: u64, attempt: u32) -> u64 {
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

/// What there is to tell about a call; dropped before it was told, the caller left.
struct News {
    recorder: Rc<Recorder>,
    op: u128,
    call: u64,
    unsafe_method: bool,
    witness: Witness,
    told: bool,
}

impl News {
    fn met(&self, result: &Result<Response<Body>, Error>) -> Met {
        let Testimony { asked, waited, released } = self.witness.hear();
        match (asked, waited, result) {
            (Some((asked, _)), Some(applied), _) => Met::Waited { asked, applied },
            _ if released => Met::Released,
            (_, _, Ok(response)) => Met::Error(response.status().as_u16()),
            (_, _, Err(_)) => Met::Cut,
        }
    }

    fn tell(mut self, met: Met) {
        self.say(met);
    }

    fn say(&mut self, met: Met) {
        self.told = true;
        let Self { op, call, unsafe_method, .. } = *self;
        self.recorder.tell(Event::Call { op, call, unsafe_method, met });
    }
}

impl Drop for News {
    fn drop(&mut self) {
        if self.told {
            return;
        }
        match self.witness.hear() {
            Testimony { waited: Some(applied), asked: Some((asked, _)), .. } => {
                self.say(Met::Waited { asked, applied })
            }
            Testimony { released: true, .. } => self.say(Met::Released),
            Testimony { asked: Some((asked, since)), .. } => self.say(Met::Left { asked, after: since.elapsed() }),
            _ => self.say(Met::Cut),
        }
    }
}
