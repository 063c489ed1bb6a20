//! What a programme of experiments brought, for the digest and the page for leaders.
//!
//! Return on investment in its usual form, gain less cost over cost. A share that failed has Wilson's interval
//! ([`super::interval::wilson`]), because a programme is a handful of experiments.

/// What came back for each unit of cost, net: 2 is two for one. None without a cost, where it would be without end.
pub fn return_on_investment(gain: f64, cost: f64) -> Option<f64> {
    let net = (gain - cost) / cost;
    (cost > 0.0 && net.is_finite()).then_some(net)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gain_as_large_as_the_cost_returns_nothing_net() {
        assert_eq!(return_on_investment(5.0, 5.0), Some(0.0));
        assert_eq!(return_on_investment(0.0, 5.0), Some(-1.0));
        assert_eq!(return_on_investment(5.0, 0.0), None);
        assert_eq!(return_on_investment(5.0, -5.0), None);
    }
}
