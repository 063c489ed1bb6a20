//! Every method against what another implementation, in another language, computed: `tests/stats/vectors.json`.

use serde_json::{Value, json};

use super::band::{band_fixed, band_sequential};
use super::interval::{farrington_manning, mantel_haenszel, miettinen_nurminen, newcombe, none_bad_upper, wilson};
use super::multiple::{e_bh, holm, together};
use super::plan::{OneLook, growth_per_treated, ninety, treated_needed_two_arm, typical};
use super::programme::return_on_investment;
use super::project::{rmle_diff, rmle_ratio};
use super::quantile::{log_bucket, ranks_fixed, ranks_sequential, smallest_sample_fixed, smallest_sample_sequential};
use super::rank::{exact_p, order};
use super::ratio::{SAMPLE_RATIO_ALARM, sample_ratio_chi2, sample_ratio_log_e};
use super::sequence::{Arm, bernoulli_cs, label_log_e, label_share, log_mart_fixed, normal_mixture, union_cs};
use super::survival::{kaplan_meier_median, well_from};
use super::{Block, OneArm, Side, TwoArm};

const METHODS: usize = 35;
const CASES: usize = 164;
const NUMBERS: usize = 631;

/// The input of one case.
struct Input<'a>(&'a Value);

impl Input<'_> {
    fn f(&self, key: &str) -> f64 {
        self.0[key].as_f64().unwrap_or_else(|| panic!("no number `{key}` in {}", self.0))
    }

    fn fs<const N: usize>(&self, keys: [&str; N]) -> [f64; N] {
        keys.map(|key| self.f(key))
    }

    fn u(&self, key: &str) -> u64 {
        self.0[key].as_u64().unwrap_or_else(|| panic!("no count `{key}` in {}", self.0))
    }

    fn list(&self, key: &str) -> Vec<f64> {
        serde_json::from_value(self.0[key].clone()).expect("a list of numbers")
    }

    fn blocks(&self, key: &str) -> Vec<Block> {
        let rows: Vec<[f64; 4]> = serde_json::from_value(self.0[key].clone()).expect("rows of four");
        rows.into_iter().map(|[bad_t, n_t, bad_c, n_c]| Block { bad_t, n_t, bad_c, n_c }).collect()
    }

    fn side(&self) -> Side {
        match self.0["side"].as_str() {
            Some("held" | "less") => Side::Held,
            Some("broken" | "greater") => Side::Broken,
            other => panic!("side {other:?}"),
        }
    }
}

/// The path of ln E, and the first block (from 1) at which it reached ln 20.
fn path(steps: impl Iterator<Item = f64>) -> Value {
    let path: Vec<f64> = steps.collect();
    let first = path.iter().position(|log_e| *log_e >= 20_f64.ln()).map(|index| index + 1);
    json!({ "logE_path": path, "first_block_reject_at_ln20": first })
}

/// Our answer to one case; none where we have no such method.
fn answer(method: &str, input: &Input<'_>) -> Option<Value> {
    Some(match method {
        "wilson" => {
            let (lo, hi) = wilson(input.f("x"), input.f("n"), input.f("conf"));
            json!({ "lo": lo, "hi": hi })
        }
        "failure_rate_small_n" => {
            let [bad, n] = input.fs(["broken", "decided"]);
            let (lo, hi) = wilson(bad, n, 0.95);
            json!({ "rate": bad / n, "lo": lo, "hi": hi })
        }
        "zero_events_upper" => {
            let n = input.f("n");
            json!({ "upper": none_bad_upper(n, input.f("conf_one_sided")), "rule_of_three": 3.0 / n })
        }
        "newcombe_diff" => {
            let [x_t, n_t, x_c, n_c, conf] = input.fs(["xT", "nT", "xC", "nC", "conf"]);
            let (lo, hi) = newcombe(x_t, n_t, x_c, n_c, conf);
            json!({ "diff": x_t / n_t - x_c / n_c, "lo": lo, "hi": hi })
        }
        "mn_score_diff" => {
            let [x_t, n_t, x_c, n_c, conf] = input.fs(["xT", "nT", "xC", "nC", "conf"]);
            let (lo, hi) = miettinen_nurminen(x_t, n_t, x_c, n_c, conf);
            json!({ "lo": lo, "hi": hi })
        }
        "farrington_manning_noninferiority" => {
            let [x_t, n_t, x_c, n_c, margin] = input.fs(["xT", "nT", "xC", "nC", "margin"]);
            let test = farrington_manning(x_t, n_t, x_c, n_c, margin)?;
            json!({ "z": test.z, "p_one_sided": test.p, "pT_null": test.at_margin.0, "pC_null": test.at_margin.1 })
        }
        "constrained_mle_diff" => {
            let [x1, n1, x2, n2, delta] = input.fs(["x1", "n1", "x2", "n2", "delta"]);
            let (p1, p2) = rmle_diff(x1, n1, x2, n2, delta);
            json!({ "p1": p1, "p2": p2 })
        }
        "constrained_mle_ratio" => {
            let [x1, n1, x2, n2, ratio] = input.fs(["x1", "n1", "x2", "n2", "ratio"]);
            let (p1, p2) = rmle_ratio(x1, n1, x2, n2, ratio);
            json!({ "p1": p1, "p2": p2 })
        }
        "mantel_haenszel_rd" => {
            let blocks = input.blocks("strata");
            let (rd, se) = mantel_haenszel(&blocks)?;
            let sum = |of: fn(&Block) -> f64| blocks.iter().map(of).sum::<f64>();
            let pooled = sum(|b| b.bad_t) / sum(|b| b.n_t) - sum(|b| b.bad_c) / sum(|b| b.n_c);
            json!({ "rd": rd, "se": se, "naive_pooled_diff": pooled })
        }
        "bernoulli_cs" => {
            let [bad, n, alpha, t_opt, tuned] = input.fs(["successes", "n", "alpha", "t_opt", "alpha_opt"]);
            assert_eq!(tuned, 0.05, "the only tuning that we have");
            let ((lo, hi), (low, high)) = (bernoulli_cs(bad, n, alpha, t_opt), wilson(bad, n, 1.0 - alpha));
            json!({ "lo": lo, "hi": hi, "width_over_wilson": (hi - lo) / (high - low) })
        }
        "beta_mixture_logM" => {
            let [bad, n, p, a, b] = input.fs(["successes", "n", "p_null", "a", "b"]);
            json!({ "logM": log_mart_fixed(bad, n, p, a, b) })
        }
        "union_diff_cs" => {
            let arm = |x, n, alpha, t_opt| Arm {
                bad: input.f(x),
                n: input.f(n),
                alpha: input.f(alpha),
                t_opt: input.f(t_opt),
            };
            let treated = arm("xT", "nT", "alpha_T", "t_opt_T");
            let control = arm("xC", "nC", "alpha_C", "t_opt_C");
            let (lo, hi) = union_cs(treated, control);
            let (low, high) = newcombe(treated.bad, treated.n, control.bad, control.n, 0.95);
            json!({ "lo": lo, "hi": hi, "width_over_newcombe": (hi - lo) / (high - low) })
        }
        "msprt_normal_mixture" => {
            let [x_t, n_t, x_c, n_c, alpha, tau2] = input.fs(["xT", "nT", "xC", "nC", "alpha", "tau2"]);
            let (lo, hi, p) = normal_mixture((x_t, n_t), (x_c, n_c), alpha, tau2)?;
            json!({ "lo": lo, "hi": hi, "always_valid_p": p })
        }
        "block_eprocess" => {
            let [margin, p0, kappa] = input.fs(["margin", "p0", "kappa"]);
            let mut process = TwoArm::with_kappa(input.side(), margin, p0, kappa);
            path(input.blocks("blocks").into_iter().map(|block| process.push(block)))
        }
        "one_arm_eprocess" => {
            assert_eq!(input.f("kappa"), super::eprocess::KAPPA, "the only weight that we have");
            let mut process = OneArm::new(input.side(), input.f("bound"), input.f("p0"));
            let rows: Vec<[f64; 2]> = serde_json::from_value(input.0["blocks"].clone()).expect("rows of two");
            path(rows.into_iter().map(|[bad, n]| process.push(bad, n)))
        }
        "ratio_eprocess" => {
            let mut process = TwoArm::ratio(input.side(), input.f("ratio"), input.f("p0"));
            path(input.blocks("blocks").into_iter().map(|block| process.push(block)))
        }
        "evariable_property" => expectation(input),
        "eprocess_planning" => {
            let [p, margin, k, alpha] = input.fs(["p", "margin", "k", "alpha"]);
            let growth = growth_per_treated(p, p, margin, k);
            let needed = treated_needed_two_arm(p, p, margin, k, alpha);
            assert_eq!(needed, ninety(growth, alpha));
            json!({ "G": growth, "n_treated_typical": typical(growth, alpha), "n_treated_90pct": needed })
        }
        "noninferiority_sample_size" => {
            let keys = ["pT", "pC", "margin", "control_per_treated", "alpha_one_sided", "power"];
            let [p_t, p_c, margin, k, alpha, power] = input.fs(keys);
            let treated = OneLook { p_t, p_c, margin, k, alpha, power }.treated();
            json!({ "nT": treated.ceil(), "nT_raw": treated, "nC": (treated * k).ceil() })
        }
        "label_ratio_test" => {
            let theta = label_share(input.f("slice"), input.f("ratio_margin"));
            let [bad_t, bad_c, a, b] = input.fs(["errors_T", "errors_C", "a", "b"]);
            json!({ "theta0": theta, "logE": label_log_e(input.side(), bad_t, bad_c, theta, (a, b)) })
        }
        "srm" => {
            let (n_t, n_c, rho) = (input.u("nT"), input.u("nC"), input.f("rho"));
            let (chi2, p) = sample_ratio_chi2(n_t, n_c, rho);
            json!({ "chi2": chi2, "p_fixed": p, "logE": sample_ratio_log_e(n_t, n_c, rho, input.f("kappa")) })
        }
        "quantile_ranks_fixed" => {
            let (lo, hi) = ranks_fixed(input.u("n"), input.f("p"), input.f("conf"));
            json!({ "rank_lo": lo, "rank_hi": hi })
        }
        "quantile_ranks_sequential" => {
            let (lo, hi) = ranks_sequential(input.u("n"), input.f("p"), input.f("alpha"), input.f("t_opt"));
            json!({ "rank_lo": lo, "rank_hi": hi })
        }
        "quantile_min_n" => {
            let [p, conf] = input.fs(["p", "conf"]);
            let sequential = smallest_sample_sequential(p, 1.0 - conf, 1000.0);
            json!({ "n_min_fixed": smallest_sample_fixed(p, conf), "n_min_sequential_topt1000": sequential })
        }
        "dkw" => json!({ "eps": band_fixed(input.f("n"), input.f("alpha")) }),
        "sequential_dkw" => {
            let [t, alpha, t_min, factor] = input.fs(["t", "alpha", "t_min", "A"]);
            assert_eq!(factor, 0.85, "the only factor that we have");
            json!({ "eps": band_sequential(t, alpha, t_min) })
        }
        "log_bucket" => {
            let (index, lower, upper) = log_bucket(input.f("x"), input.f("rel_accuracy"));
            json!({ "index": index, "lower": lower, "upper": upper })
        }
        "mann_whitney" => {
            let (x, y) = (input.list("x"), input.list("y"));
            let seen = order(&x, &y)?;
            json!({
                "U_x": seen.u,
                "cles": seen.share,
                "p_two_sided_cc": seen.p_corrected,
                "p_two_sided_nocc": seen.p,
                "p_exact": exact_p(seen.u, x.len(), y.len()),
            })
        }
        "holm" => json!({ "adjusted": holm(&input.list("p")) }),
        "e_bh" => json!({ "rejected_indices": e_bh(&input.list("e"), input.f("alpha")) }),
        "verdict_rule" => {
            // That the set-up was right is the lab's question; here it is asked as the vectors put it.
            let unfaulted = input.0["injected"].as_u64() == Some(0);
            let uneven = input.0["srm_logE"].as_f64().is_some_and(|log_e| log_e >= SAMPLE_RATIO_ALARM);
            let [alpha_h, alpha_b] = input.fs(["alpha_h", "alpha_b"]);
            match together(&input.list("logE_held"), &input.list("logE_broken"), alpha_h, alpha_b) {
                _ if unfaulted || uneven => json!("INVALID"),
                Some(Side::Held) => json!("HELD"),
                Some(Side::Broken) => json!("BROKEN"),
                None => json!("INCONCLUSIVE"),
            }
        }
        "roi_tooling_percent" => {
            let [revenue, savings, tooling] = input.fs(["revenue_increase", "cost_savings", "tooling"]);
            json!(return_on_investment(revenue + savings, tooling)? * 100.0)
        }
        "roi_ratio" => json!(return_on_investment(input.f("uplift"), input.f("cost"))?),
        "roi_percent" => json!(return_on_investment(input.f("benefit"), input.f("cost"))? * 100.0),
        "learning_velocity_km" => {
            let closed: Vec<bool> = serde_json::from_value(input.0["closed"].clone()).expect("a list of booleans");
            let times: Vec<(f64, bool)> = input.list("days").into_iter().zip(closed).collect();
            let ended: Vec<f64> = times.iter().filter(|(_, ended)| *ended).map(|(days, _)| *days).collect();
            let naive = ended.iter().sum::<f64>() / ended.len() as f64;
            json!({ "km_median": kaplan_meier_median(&times), "naive_mean_of_closed": naive })
        }
        "recovery_time" => {
            let windows = input.0["windows"].as_array().expect("windows");
            let windows: Vec<(f64, f64)> =
                windows.iter().map(|window| (Input(window).f("errors"), Input(window).f("n"))).collect();
            let (limit, length) = (input.f("p0") + input.f("margin"), input.f("window_s"));
            match well_from(&windows, limit, input.u("min_good") as usize) {
                None => Value::Null,
                Some(index) => {
                    json!({ "first_good_window": index + 1, "ttr_s": index as f64 * length, "resolution_s": length })
                }
            }
        }
        _ => return None,
    })
}

/// The mean of a block's factor on the null's boundary, by adding up every outcome of the block.
fn expectation(input: &Input<'_>) -> Value {
    let [q_t, q_c, margin, n_t, n_c] = input.fs(["qT", "qC", "margin", "nT", "nC"]);
    let (p_t, p_c) = rmle_diff(n_t * q_t, n_t, n_c * q_c, n_c, margin);
    let slope = |q: f64, p: f64| (q - p) / (p * (1.0 - p));
    let (g_t, g_c) = (slope(q_t, p_t), slope(q_c, p_c));
    // The boundary is sampled where the vectors sample it: at round shares, and at the projection itself.
    let points = [0.001, 0.005, p_c, 0.02, 0.05].map(|at_c| {
        let truth = (at_c + margin, at_c);
        json!({ "pC": at_c, "E": super::properties::mean_factor((n_t, n_c), truth, |block| {
            super::eprocess::log_factor_of_difference(block, (q_t, q_c), margin)
        }) })
    });
    json!({
        "p0T": p_t, "p0C": p_c, "gT": g_t, "gC": g_c,
        "nT_gT_plus_nC_gC": n_t * g_t + n_c * g_c, "expectation_at_boundary": points,
    })
}

/// Compares every leaf of what is expected with ours, and counts them.
fn compare(expected: &Value, ours: &Value, tolerance: f64, place: &str, wrong: &mut Vec<String>) -> usize {
    match (expected, ours) {
        (Value::Object(fields), Value::Object(found)) => fields
            .iter()
            .map(|(key, value)| match found.get(key) {
                Some(ours) => compare(value, ours, tolerance, &format!("{place}.{key}"), wrong),
                None => {
                    wrong.push(format!("{place}.{key} is missing"));
                    0
                }
            })
            .sum(),
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => (0..expected.len())
            .map(|index| compare(&expected[index], &found[index], tolerance, &format!("{place}[{index}]"), wrong))
            .sum(),
        (Value::Number(expected), Value::Number(found)) => {
            let (expected, found) = (expected.as_f64().expect("finite"), found.as_f64().expect("finite"));
            // What is not a number is `null` in JSON, and wrong below.
            if (expected - found).abs() > tolerance {
                wrong.push(format!("{place}: expected {expected}, found {found} (tolerance {tolerance})"));
            }
            1
        }
        _ => {
            if expected != ours {
                wrong.push(format!("{place}: expected {expected}, found {ours}"));
            }
            1
        }
    }
}

/// Runs every case of every method; returns the number of methods, cases and numbers, and what is wrong.
fn run(document: &Value) -> (usize, usize, usize, Vec<String>) {
    let (mut cases, mut numbers, mut wrong) = (0, 0, Vec::new());
    let methods = document["vectors"].as_array().expect("a list of methods");
    for method in methods {
        let id = method["id"].as_str().expect("every method has an id");
        let tolerance = method["tolerance_abs"].as_f64().expect("every method has a tolerance");
        let listed = method["cases"].as_array().expect("every method has cases");
        if listed.is_empty() {
            wrong.push(format!("{id} has no cases"));
        }
        for (index, case) in listed.iter().enumerate() {
            cases += 1;
            let place = format!("{id} #{index}");
            match answer(id, &Input(&case["input"])) {
                Some(ours) => numbers += compare(&case["output"], &ours, tolerance, &place, &mut wrong),
                None => wrong.push(format!("{place}: no answer from us")),
            }
        }
    }
    (methods.len(), cases, numbers, wrong)
}

fn document() -> Value {
    serde_json::from_str(include_str!("../../tests/stats/vectors.json")).expect("valid JSON")
}

#[test]
fn every_vector_is_met_within_its_own_tolerance() {
    let (methods, cases, numbers, wrong) = run(&document());
    println!("{methods} methods, {cases} cases, {numbers} numbers compared");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!((methods, cases, numbers), (METHODS, CASES, NUMBERS), "has something been skipped?");
}

#[test]
fn ratio_bounds_follow_the_same_path_as_a_projection_by_bisection() {
    let mut method: Value = serde_json::from_str(include_str!("../../tests/stats/ratio.json")).expect("valid JSON");
    method["id"] = json!("ratio_eprocess");
    let (_, cases, numbers, wrong) = run(&json!({ "vectors": [method] }));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!((cases, numbers), (10, 78));
}

#[test]
fn a_method_that_is_not_ported_or_a_number_that_is_wrong_fails() {
    let mut spoilt = document();
    spoilt["vectors"][0]["id"] = json!("not ported");
    spoilt["vectors"][1]["cases"][0]["output"]["upper"] = json!(0.0295131);
    spoilt["vectors"][2]["cases"][0]["output"]["diff"] = Value::Null;
    spoilt["vectors"][3]["cases"][0]["output"]["more"] = json!(1);
    spoilt["vectors"][4]["cases"] = json!([]);
    let (_, _, _, wrong) = run(&spoilt);
    assert_eq!(wrong.len(), 9 + 1 + 1 + 1 + 1, "{}", wrong.join("\n"));
}
