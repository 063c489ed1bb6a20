//! Metrics in Prometheus text, from plain snapshots: the data plane knows nothing of them.

use std::sync::atomic::Ordering;

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge, with_local_recorder};
use metrics_exporter_prometheus::PrometheusBuilder;

use super::{Admin, Reloads};
use crate::lab::{Counters, Status};

/// Classes of answers, in the order of a listener's counters.
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];

/// All metrics at this moment. Labels are names from documents and classes, never paths or users.
pub(super) fn render(admin: &Admin) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    with_local_recorder(&recorder, || {
        describe();
        listeners(admin);
        runs(&admin.control.runs_here());
        counted(&admin.control.counted());
        reloads(&admin.standing.reloads());
        let lab = admin.control.lab();
        gauge!("pratfall_armed").set(f64::from(u8::from(lab.limits.armed())));
        gauge!("pratfall_halted").set(f64::from(u8::from(admin.control.halted().is_some())));
        gauge!("pratfall_connections").set(lab.proxy.connections() as f64);
        gauge!("pratfall_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    });
    handle.render()
}

fn describe() {
    describe_counter!("pratfall_requests_total", Unit::Count, "Answers by listener and class of status.");
    describe_counter!("pratfall_proxy_errors_total", Unit::Count, "Requests that the proxy itself could not send on.");
    describe_counter!("pratfall_connections_accepted_total", Unit::Count, "Connections that were accepted.");
    describe_counter!(
        "pratfall_connections_shed_total",
        Unit::Count,
        "Connections that were closed: too many were open."
    );
    describe_counter!("pratfall_reloads_total", Unit::Count, "Reloads of the system file, by result.");
    describe_gauge!(
        "pratfall_config_last_reload_successful",
        Unit::Count,
        "1 if the system file as seen last is sound."
    );
    describe_gauge!(
        "pratfall_config_last_reload_success_timestamp_seconds",
        Unit::Seconds,
        "When the system file that is served was read."
    );
    describe_counter!(
        "pratfall_faults_injected_total",
        Unit::Count,
        "Calls and connections that met a fault, by its listener, experiment and kind."
    );
    describe_counter!("pratfall_faults_suppressed_total", Unit::Count, "Calls that met no fault, by the reason.");
    describe_counter!("pratfall_harmed_units_total", Unit::Count, "Treated units that came to harm, by experiment.");
    describe_gauge!("pratfall_armed", Unit::Count, "1 if `limits.faults` lists anything that may be injected.");
    describe_gauge!("pratfall_halted", Unit::Count, "1 if somebody halted and nobody resumed.");
    describe_gauge!("pratfall_active_faults", Unit::Count, "Runs whose fault is on at this moment.");
    describe_gauge!("pratfall_held_requests", Unit::Count, "Requests held in a fault at this moment.");
    describe_gauge!("pratfall_experiment_active", Unit::Count, "1 for each experiment that is live.");
    describe_gauge!("pratfall_connections", Unit::Count, "Connections that are open.");
    describe_gauge!("pratfall_build_info", Unit::Count, "The version, as a label.");
}

fn listeners(admin: &Admin) {
    for listener in admin.control.lab().proxy.listeners().iter() {
        let name = || listener.name.clone();
        let totals = listener.totals();
        for (class, count) in CLASSES.iter().zip(totals.answers) {
            counter!("pratfall_requests_total", "listener" => name(), "code_class" => *class).absolute(count);
        }
        counter!("pratfall_proxy_errors_total", "listener" => name()).absolute(totals.proxy_errors);
        let accepted = listener.accepted.load(Ordering::Relaxed);
        counter!("pratfall_connections_accepted_total", "listener" => name()).absolute(accepted);
        let shed = listener.shed.load(Ordering::Relaxed);
        counter!("pratfall_connections_shed_total", "listener" => name()).absolute(shed);
    }
}

fn reloads(reloads: &Reloads) {
    for (result, count) in [("success", reloads.succeeded), ("failure", reloads.failed)] {
        counter!("pratfall_reloads_total", "result" => result).absolute(count);
    }
    gauge!("pratfall_config_last_reload_successful").set(f64::from(u8::from(reloads.sound && reloads.wrong.is_none())));
    if let Some(at) = reloads.read_at {
        let seconds = at.as_millisecond() as f64 / 1e3;
        gauge!("pratfall_config_last_reload_success_timestamp_seconds").set(seconds);
    }
}

fn counted(counters: &Counters) {
    for ((listener, experiment, fault), count) in &counters.met {
        let labels =
            [("listener", listener.clone()), ("experiment", experiment.clone()), ("fault", (*fault).to_owned())];
        counter!("pratfall_faults_injected_total", &labels).absolute(*count);
    }
    for (reason, count) in &counters.spared {
        counter!("pratfall_faults_suppressed_total", "reason" => *reason).absolute(*count);
    }
    for (experiment, count) in &counters.harmed {
        counter!("pratfall_harmed_units_total", "experiment" => experiment.clone()).absolute(*count);
    }
}

fn runs(runs: &[Status]) {
    let (mut active, mut held) = (0u32, 0u64);
    for status in runs {
        let progress = &status.progress;
        let live = status.result.is_none();
        active += u32::from(live && progress.injecting);
        held += if live { progress.held } else { 0 };
        if live {
            gauge!("pratfall_experiment_active", "experiment" => progress.experiment.clone()).set(1.0);
        }
    }
    gauge!("pratfall_active_faults").set(f64::from(active));
    gauge!("pratfall_held_requests").set(held as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_counted_by_listener_experiment_and_kind_and_the_spared_by_reason() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let mut counters = Counters::default();
        counters.met.insert(("inventory".into(), "slow".into(), "latency"), 3);
        counters.spared.insert("probe", 2);
        counters.harmed.insert("slow".into(), 1);
        with_local_recorder(&recorder, || counted(&counters));
        let text = handle.render();
        for line in [
            "pratfall_faults_injected_total{listener=\"inventory\",experiment=\"slow\",fault=\"latency\"} 3",
            "pratfall_faults_suppressed_total{reason=\"probe\"} 2",
            "pratfall_harmed_units_total{experiment=\"slow\"} 1",
        ] {
            assert!(text.contains(line), "`{line}` is not in\n{text}");
        }
    }
}
