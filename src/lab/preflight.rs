//! May it start? Everything that can be known before the first request is asked here, and refused with the way out.

use std::sync::Arc;
use std::time::Duration;

use crate::experiment::limits::Limits;
use crate::experiment::{By, Carry, Experiment, Guard, Length, Measure, Threshold};
use crate::fault::Fault;
use crate::measure::MAX_RULES;
use crate::proxy::{self, Proxy};
use crate::units::{Increase, Span};

/// Why a run was refused before it began.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The document asks for what cannot be, here or in this version: a matter of the file.
    #[error("{0}")]
    Document(String),
    /// The system does not allow it now: halted, not armed, taken, down, out of hours.
    #[error("{0}")]
    NotNow(String),
    /// Something of ours failed.
    #[error("{0}")]
    Internal(String),
}

/// What this version reads and does not conduct yet, one sentence each. Nothing is ignored.
pub fn not_yet(experiment: &Experiment) -> Vec<String> {
    let mut reasons: Vec<String> = experiment.inject.faults.iter().filter_map(Fault::not_yet).collect();
    let mut later = |found: bool, what: &str, instead: &str| {
        if found {
            reasons.push(format!("{what} is read but not conducted by this version; {instead}"));
        }
    };
    let slice = &experiment.slice;
    later(experiment.search.is_some(), "`search`", "write one dose and run again with the next");
    let measures = experiment.steady_state.iter().map(|indicator| &indicator.measure);
    for measure in measures {
        match measure {
            Measure::ErrorRate { bounds, .. } | Measure::SlowRate { bounds, .. } => later(
                matches!(bounds.max_increase, Some(Increase::Ratio(_))),
                "a `max_increase` as a ratio",
                "write points, as in `1pp`",
            ),
            Measure::FailedOperations { bounds, by, .. } => {
                let ratio = matches!(bounds.max_increase, Some(Increase::Ratio(_)));
                later(ratio, "a `max_increase` as a ratio", "write points, as in `1pp`");
                let alone = experiment.steady_state.len() == 1;
                later(!alone, "`failed_operations` beside other indicators", "write an experiment for each");
                later(experiment.compares_phases(), "`failed_operations` with `carry: none`", "let the arm be carried");
                let torn = slice.by == By::Request && *by != By::Request;
                let instead = format!("choose the slice `by: {by}` as well");
                later(torn, "`failed_operations` with attempts in different arms (`by: request`)", &instead);
            }
            Measure::Probe(_) => later(true, "an indicator by `probe`", "measure `error_rate` or `slow_rate`"),
        }
    }
    let mut places = measured(experiment);
    let elsewhere = places.clone().any(|at| *at != slice.at);
    if experiment.compares_phases() {
        let first = places.next();
        later(
            !places.all(|at| Some(at) == first),
            "`carry: none` with indicators at several listeners",
            "write one `at` for all of them",
        );
    } else {
        later(elsewhere, "an indicator `at` another listener than the slice's", "leave `at` out");
    }
    for guard in &experiment.guards {
        let probe = matches!(guard, Guard::Probe(_));
        later(probe, "a guard by `probe`", "use `error_rate`, `slow_rate` or `harmed`");
    }
    let command = experiment.traffic.as_ref().is_some_and(|traffic| traffic.command.is_some());
    later(command, "`traffic` by `command`", "write `rate` and `requests`, or start the command beside the run");
    later(experiment.known.is_some(), "`known`", "leave it out, or use `--fail-on`");
    reasons
}

/// Whether the files that the experiment names were read.
pub fn files(experiment: &Experiment) -> Result<(), Refusal> {
    match experiment.inject.faults.iter().find(|fault| fault.is_unread()).and_then(|fault| fault.file()) {
        Some((key, file)) => Err(Refusal::Document(format!("`{key}: {file}` was not read, so that nothing can begin"))),
        None => Ok(()),
    }
}

/// Where the indicators of requests are.
fn measured(experiment: &Experiment) -> impl Iterator<Item = &String> + Clone {
    let indicators = experiment.steady_state.iter();
    indicators.filter(|it| !matches!(it.measure, Measure::Probe(_))).map(|indicator| &indicator.at)
}

/// Whether an experiment may run on this proxy under these limits, at the places it names.
pub fn places(experiment: &Experiment, proxy: &Proxy) -> Result<(usize, usize), Refusal> {
    let find = |name: &str| {
        proxy.find(name).map(|(index, _)| index).ok_or_else(|| {
            let listeners = proxy.listeners();
            let names: Vec<&str> = listeners.iter().map(|listener| listener.name.as_str()).collect();
            Refusal::Document(format!("there is no listener `{name}`; the system has {}", names.join(", ")))
        })
    };
    // Without arms there is nothing to know at the slice: requests are measured where the indicators are.
    let first = measured(experiment).next().filter(|_| experiment.compares_phases()).unwrap_or(&experiment.slice.at);
    let places = (find(first)?, find(&experiment.inject.at)?);
    let baggage = experiment.slice.carry == Carry::Baggage;
    if places.0 != places.1 && baggage && proxy.at(places.0).setup().config.external {
        return Err(Refusal::Document(format!(
            "the upstream of `{}` is external: no baggage of ours goes there, so no fault elsewhere can be reached by it; `carry: auto` takes ids as well",
            experiment.slice.at
        )));
    }
    let secured = proxy.at(places.1).setup().config.tls.is_some();
    if !secured && experiment.inject.faults.iter().any(|fault| fault.kind() == "tls") {
        return Err(Refusal::Document(format!(
            "`{}` speaks in the clear, so no handshake can fail there; give it `tls`, or write `drop: {{ how: refuse }}`",
            experiment.inject.at
        )));
    }
    Ok(places)
}

/// What the limits of the system say.
pub fn limits(experiment: &Experiment, limits: &Arc<Limits>) -> Result<(), Refusal> {
    for fault in &experiment.inject.faults {
        if !limits.allows_fault(fault) {
            return Err(Refusal::NotNow(format!(
                "not armed: `limits.faults` does not list `{}`; add it to the system file to allow it",
                fault.kind()
            )));
        }
    }
    let at = &experiment.inject.at;
    let new_connections = experiment.inject.faults.iter().find(|fault| fault.meets_new_connections());
    if let Some(fault) = new_connections.filter(|_| limits.protect.iter().any(|route| route.at == *at)) {
        return Err(Refusal::NotNow(format!(
            "`limits.protect` names routes at `{at}`, and `{}` meets connections whatever they are for",
            fault.kind()
        )));
    }
    let methods = experiment.inject.matches.methods();
    let twice = |method: &http::Method| method.is_safe() || limits.duplicate_methods.contains(method);
    let duplicates = experiment.inject.faults.iter().any(|fault| matches!(fault, Fault::Duplicate(_)));
    if let Some(method) = methods.first().filter(|_| duplicates && !methods.iter().any(twice)) {
        return Err(Refusal::NotNow(format!(
            "no {method} may be sent twice; `limits: {{ duplicate_methods: {method} }}` in the system file allows it"
        )));
    }
    let treatment = experiment.slice.final_treatment();
    // Without a mark that travels, calls of own load are not told from those of others where the fault waits.
    let own = experiment.traffic.as_ref().is_some_and(|traffic| traffic.only_own) && !experiment.compares_phases();
    if let Some(most) = limits.max_slice.filter(|most| !own && treatment > *most) {
        return Err(Refusal::NotNow(format!("the treatment of {treatment:#} is above `limits.max_slice` ({most:#})")));
    }
    let phases = &experiment.phases;
    let written = [phases.baseline, phases.inject, phases.recovery].map(|length| match length {
        Length::Fixed(span) => span.get(),
        Length::Auto { .. } => Duration::ZERO, // planned later, within the limit
    });
    let run: Duration = written.iter().sum();
    if run > limits.max_duration.get() {
        return Err(Refusal::NotNow(format!(
            "a run of {:#} from baseline to recovery is longer than `limits.max_duration` ({:#}); write shorter phases",
            Span::from(run),
            limits.max_duration
        )));
    }
    if !limits.allows_now(crate::clock::now()) {
        return Err(Refusal::NotNow("it is outside `limits.hours`".into()));
    }
    Ok(())
}

/// Questions that are asked of each unit, at most.
pub fn questions(rules: usize) -> Result<(), Refusal> {
    if rules > MAX_RULES {
        return Err(Refusal::Document(format!("indicators and guards together are at most {MAX_RULES}, not {rules}")));
    }
    Ok(())
}

/// Whether the upstreams of both places can be reached at all.
pub async fn upstreams(proxy: &Proxy, places: (usize, usize)) -> Result<(), Refusal> {
    for place in [places.0, places.1] {
        let setup = proxy.at(place).setup();
        let config = &setup.config;
        let Some(target) = &config.upstream else { continue };
        let connecting = proxy::reach(target);
        let reached = tokio::time::timeout(config.timeouts.connect.get().max(Duration::from_millis(100)), connecting);
        let why = match reached.await {
            Ok(Ok(_)) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        return Err(Refusal::NotNow(format!("the upstream of `{}`, {target}, cannot be reached: {why}", config.name)));
    }
    Ok(())
}

/// The threshold of a slow rate that is known from the start.
pub fn threshold(measure: &Measure) -> Option<Duration> {
    match measure {
        Measure::SlowRate { over: Threshold::Over(span), .. } => Some(span.get()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn experiment(matches: &str, fault: &str) -> Experiment {
        let text = format!(
            "version: 1\nexperiment: twice\nhypothesis: If it comes twice, then it counts once, because it has a key.\n\
             slice: {{ at: front }}\n\
             inject: {{ at: inventory, match: {{ {matches} }}, faults: [{{ {fault} }}] }}\n\
             steady_state: [{{ error_rate: {{ max_increase: 1pp }} }}]\n"
        );
        Experiment::parse("twice.yaml", &text, &|_| None).unwrap().0
    }

    #[test]
    fn a_run_that_could_send_nothing_twice_is_refused() {
        let refused = |matches: &str, fault: &str, methods: &[http::Method]| {
            let allowed = Limits { duplicate_methods: methods.to_vec(), ..Limits::default().with_every_fault() };
            limits(&experiment(matches, fault), &Arc::new(allowed)).map_err(|refusal| refusal.to_string())
        };
        let why = "no POST may be sent twice; `limits: { duplicate_methods: POST }` in the system file allows it";
        for matches in ["method: POST", "method: [POST, PUT]", "grpc: shop.Ranker/Rank"] {
            assert_eq!(refused(matches, "duplicate: {}", &[]), Err(why.to_owned()), "{matches}");
            assert_eq!(refused(matches, "duplicate: {}", &[http::Method::POST]), Ok(()), "{matches}");
            assert_eq!(refused(matches, "drop: { how: reset }", &[]), Ok(()), "{matches}");
        }
        for matches in ["", "method: [POST, GET]"] {
            assert_eq!(refused(matches, "duplicate: {}", &[]), Ok(()), "{matches}");
        }
    }

    #[test]
    fn a_file_that_was_not_read_is_no_fault() {
        let refusal = files(&experiment("", "latency: { histogram: delays.csv }")).unwrap_err();
        assert_eq!(refusal.to_string(), "`histogram: delays.csv` was not read, so that nothing can begin");
        assert_eq!(files(&experiment("", "latency: { delay: 1s }")), Ok(()));
    }
}
