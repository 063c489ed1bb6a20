//! What a new connection meets where a fault waits for connections: nothing, an end, or a handshake that fails.
//!
//! Its arm is drawn from its caller's address as that of a request by `client-ip` is, so that both are the same; where the
//! slice is chosen by anything else, each connection is drawn for itself.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::Request;
use tokio_rustls::rustls::ServerConfig;

use super::answer::Connection;
use super::fail_open;
use super::injecting::Injecting;
use super::key;
use super::meet;
use super::site::Plan;
use super::trial::Trial;
use crate::experiment::By;
use crate::fault::tls::{Tls, TlsHow};
use crate::fault::{Draw, Fault, Witness};
use crate::measure::{Arm, Note, Phase};

/// How a new connection goes on.
pub(super) enum Greeting {
    /// As if there were no run.
    AsEver,
    /// With this certificate in place of the listener's.
    With(Arc<ServerConfig>),
    /// Not at all.
    NoMore,
}

/// What a new connection meets while runs are live.
pub(super) async fn greet(connection: &Connection, plan: &Rc<Plan>) -> Greeting {
    let listener = &connection.site.listener;
    let trials = listener.trials();
    let drawn_here = |trial: &Trial| trial.slice_at == listener.index || trial.compares_phases();
    let here = trials.iter().find(|trial| trial.inject_at == listener.index && drawn_here(trial));
    let Some(trial) = here else { return Greeting::AsEver };
    let Some(on) = trial.injecting.load_full().filter(|on| !on.connections.is_empty()) else {
        return Greeting::AsEver;
    };
    let Some((fault, draw)) = trial.guarded(|| chosen(connection, plan, trial, &on)) else { return Greeting::AsEver };
    match (fault, &plan.setup.tls.server) {
        (Fault::Tls(tls), _) if tls.how == TlsHow::Stall => {
            fail_open::caught(trial, stall(connection, trial, &on, tls, draw)).await.unwrap_or(Greeting::AsEver)
        }
        (Fault::Tls(tls), Some(real)) => {
            let address = connection.socket.local_address().unwrap_or_else(|| plan.config().bind.ip());
            let forged = trial.guarded(|| Some(on.forger().config(tls.how, real, address)));
            forged.map_or(Greeting::AsEver, Greeting::With)
        }
        _ => {
            connection.socket.reset();
            Greeting::NoMore
        }
    }
}

/// The fault that this connection is to meet, and what it draws from.
fn chosen<'f>(
    connection: &Connection,
    plan: &Plan,
    trial: &Arc<Trial>,
    on: &'f Injecting,
) -> Option<(&'f Fault, Draw)> {
    let (slice, inject) = (&trial.experiment.slice, &trial.experiment.inject);
    let caller = connection.caller.ip();
    // Behind a proxy that is trusted there are many callers, and which of them comes here nobody has said yet.
    let one = !plan.config().trusted_proxies.iter().any(|net| net.contains(&caller.to_canonical()));
    if trial.only_own || !one || !slice.matches.asks_for_callers_only() || !inject.matches.asks_for_callers_only() {
        return None;
    }
    let key = match slice.by {
        By::ClientIp => caller.to_string().into_bytes(),
        _ => key::alone(&connection.worker).to_vec(),
    };
    if !slice.matches.matches(&Request::new(()), Some(caller)) || trial.arm(trial.key(&key)) != Arm::Treatment {
        return None;
    }
    let secure = plan.setup.tls.server.is_some();
    let faults: Vec<&Fault> = on.connections.iter().filter(|fault| secure || fault.kind() != "tls").collect();
    let recorder = connection.worker.recorder(trial);
    match allowed(trial, caller, &key, &recorder) {
        Ok(draw) => {
            let fault = *faults.get((draw.uniform(0) * faults.len() as f64) as usize)?;
            recorder.note(Note::Faulted);
            trial.meets([fault.kind()].into_iter());
            Some((fault, draw))
        }
        Err(why) => {
            recorder.note(why);
            None
        }
    }
}

fn allowed(trial: &Trial, caller: IpAddr, key: &[u8], recorder: &crate::measure::Recorder) -> Result<Draw, Note> {
    let inject = &trial.experiment.inject;
    if !inject.matches.matches(&Request::new(()), Some(caller)) {
        return Err(Note::SparedNoMatch);
    }
    // A connection has no path: it could be for a protected route.
    if trial.limits.protect.iter().any(|route| route.at == inject.at) {
        return Err(Note::SparedProtected);
    }
    let op = u128::from(trial.key(key)) << 64 | Phase::Inject as u128;
    let call = trial.chance.bits("call", b"a connection");
    let draw = meet::drawn(trial, recorder, op, call)?;
    meet::allowed(trial, caller)?;
    Ok(draw)
}

async fn stall(connection: &Connection, trial: &Arc<Trial>, on: &Injecting, tls: &Tls, draw: Draw) -> Greeting {
    let _held = trial.hold();
    let witness = Witness::in_turn(on.release.clone(), draw.uniform(1));
    tokio::select! {
        biased;
        released = tls.stall(on.stop.clone(), witness) => if released { Greeting::AsEver } else { Greeting::NoMore },
        () = connection.socket.closed() => Greeting::NoMore,
        () = connection.site.listener.drain.cancelled() => Greeting::NoMore,
    }
}
