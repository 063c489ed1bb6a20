//! Health probes: whoever asks whether a service lives acts on the answer for everybody, so that no fault meets them
//! unless the experiment names them.

use http::Request;
use http::header::USER_AGENT;

/// Paths that are asked for nothing else: of Kubernetes, of load balancers, and of frameworks as they come.
pub const PATHS: [&str; 17] = [
    "/livez",
    "/readyz",
    "/healthz",
    "/startupz",
    "/health",
    "/ready",
    "/live",
    "/ping",
    "/health/live",
    "/health/ready",
    "/health/started",
    "/healthcheck",
    "/actuator/health",
    "/actuator/health/liveness",
    "/actuator/health/readiness",
    "/-/healthy",
    "/-/ready",
];

/// How the path of gRPC's health checking begins.
pub const GRPC: &str = "/grpc.health.v1.Health/";

/// How the user agents of probes begin: Kubernetes, Google Cloud, AWS (two), Azure, Envoy, Consul.
pub const AGENTS: [&str; 7] = [
    "kube-probe/",
    "GoogleHC/",
    "ELB-HealthChecker/",
    "Amazon-Route53-Health-Check-Service",
    "Edge Health Probe",
    "Envoy/HC",
    "Consul Health Check",
];

/// Whether a request looks like a health probe.
pub fn is_probe<B>(request: &Request<B>) -> bool {
    let path = request.uri().path();
    if PATHS.contains(&path) || path.starts_with(GRPC) {
        return true;
    }
    // In one walk: of the few fields of most requests, to look at each costs less than to look one up.
    let agent = request.headers().iter().find(|(name, _)| **name == USER_AGENT);
    agent.is_some_and(|(_, agent)| AGENTS.iter().any(|probe| agent.as_bytes().starts_with(probe.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::super::Experiment;
    use super::*;

    fn request(path: &str, agent: &str) -> Request<()> {
        Request::get(path).header(USER_AGENT, agent).body(()).unwrap()
    }

    #[test]
    fn probes_are_known_by_their_path_or_their_agent() {
        for (path, agent, probe) in [
            ("/healthz", "curl/8.5", true),
            ("/readyz?verbose", "", true),
            ("/grpc.health.v1.Health/Check", "grpc-go/1.6", true),
            ("/checkout", "kube-probe/1.31", true),
            ("/checkout", "ELB-HealthChecker/2.0", true),
            ("/checkout", "GoogleHC/1.0", true),
            ("/checkout", "curl/8.5", false),
            ("/checkout", "not kube-probe/1.31", false),
            ("/healthy-food", "", false),
            ("/api/health", "", false),
            ("/shop.Health/Check", "", false),
        ] {
            assert_eq!(is_probe(&request(path, agent)), probe, "{path} {agent}");
        }
    }

    #[test]
    fn a_match_names_probes_by_a_whole_path_or_by_their_agent() {
        for (conditions, names) in [
            ("{}", false),
            ("{ path: /** }", false),
            ("{ path: /health* }", false),
            ("{ path: [/checkout, /healthz] }", true),
            ("{ header: { user-agent: 'kube-probe/*' } }", true),
            ("{ any: [{ path: /checkout }, { path: /healthz }] }", true),
            ("{ header: { x-user: '*' } }", false),
            ("{ path: /**, not: { path: /healthz } }", false),
        ] {
            let text = format!(
                "version: 1\nexperiment: test\nhypothesis: All is well.\nslice: {{ at: front, match: {conditions} }}\n\
                 inject: {{ at: back, faults: [{{ error: {{ status: 503 }} }}] }}\n\
                 steady_state: [{{ error_rate: {{ max: 1% }} }}]\n"
            );
            let (experiment, _) = Experiment::parse("test", &text, &|_| None).unwrap_or_else(|wrong| panic!("{wrong}"));
            let named = experiment.slice.matches.names(&request("/healthz", "kube-probe/1.31"));
            assert_eq!(named, names, "{conditions}");
        }
        let grpc = "version: 1\nexperiment: test\nhypothesis: All is well.\n\
            slice: { at: front, match: { grpc: grpc.health.v1.Health/* } }\n\
            inject: { at: back, faults: [{ error: { status: 503 } }] }\nsteady_state: [{ error_rate: { max: 1% } }]\n";
        let (experiment, _) = Experiment::parse("test", grpc, &|_| None).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert!(experiment.slice.matches.names(&request("/grpc.health.v1.Health/Check", "")));
    }
}
