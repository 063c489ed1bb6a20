//! The parts of a page that only people can fill: why after why, actions, the review. What they have not said is empty.

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use super::Why;
use super::page::{Block, Cell, Head, Look, Row, Table, Term, WhyLine, sentence};
use super::words;

/// How often people ask why before they are content (Ohno 1988).
const WHYS: usize = 5;
/// Branches of one tree that are shown; more of them is a heap, not a tree.
const BRANCHES: usize = 60;

/// The tree of whys, down to the fifth.
pub(super) fn whys(whys: &[Why]) -> Vec<Block> {
    let mut lines = Vec::new();
    if whys.is_empty() {
        let question = "Why could the hypothesis be wrong?".to_owned();
        push_whys(&[Why { question, answer: None, evidence: None, whys: Vec::new() }], "", 0, &mut lines);
    } else {
        push_whys(whys, "", 0, &mut lines);
    }
    let text = "The first answers come from this run. The others are for people: ask how and what, not who.";
    vec![Block::Text(text.to_owned()), Block::Whys(lines)]
}

fn push_whys(whys: &[Why], above: &str, depth: usize, lines: &mut Vec<WhyLine>) {
    for (place, why) in whys.iter().enumerate() {
        if lines.len() >= BRANCHES {
            return;
        }
        let number = if above.is_empty() { (place + 1).to_string() } else { format!("{above}.{}", place + 1) };
        lines.push(WhyLine {
            depth,
            question: sentence(&why.question),
            answer: why.answer.as_deref().filter(|answer| !answer.trim().is_empty()).map(sentence),
            evidence: why.evidence.as_deref().map(sentence).unwrap_or_default(),
            number: number.clone(),
        });
        if why.whys.is_empty() && depth + 1 < WHYS {
            let question = "And why is that?".to_owned();
            let deeper = Why { question, answer: None, evidence: None, whys: Vec::new() };
            push_whys(&[deeper], &number, depth + 1, lines);
        } else {
            push_whys(&why.whys, &number, depth + 1, lines);
        }
    }
}

/// What people will do, and room for more.
pub(super) fn actions(actions: &[String]) -> Vec<Block> {
    let blank = || Cell { look: Look::Blank, ..Cell::default() };
    let row = |what: Cell| Row { cells: vec![what, blank(), blank(), blank(), blank(), blank()], note: String::new() };
    let mut rows: Vec<_> = actions.iter().map(|action| row(Cell::text(sentence(action)))).collect();
    while rows.len() < 3 {
        rows.push(row(blank()));
    }
    let head = ["What", "Owner", "Due", "Impact", "Confidence", "Ease"];
    vec![
        Block::Table(Table {
            caption: "What people will do",
            head: head.map(|text| Head { text: text.to_owned(), figures: false }).into(),
            rows,
            notes: "",
        }),
        Block::Small(
            "Impact, confidence and ease from 1 to 10. At least one line should prevent, and one should detect."
                .to_owned(),
        ),
    ]
}

/// What only people know, and until when they have to say it: 48 hours for the review, five business days to decide.
pub(super) fn review(ended_at: Timestamp) -> Vec<Block> {
    let review = ended_at.checked_add(48.hours()).unwrap_or(ended_at);
    vec![
        Block::Terms(vec![
            Term { name: "Review by", text: words::deadline(review) },
            Term { name: "Decide by", text: words::deadline(business_days(ended_at, 5)) },
        ]),
        Block::Blank("What do we know now that we could not have known before?"),
        Block::Blank("What went well, what went badly, and where were we lucky?"),
        Block::Blank("What did users, support and people on call notice?"),
        Block::Blank("Which alarm should have rung, and did it?"),
    ]
}

fn business_days(from: Timestamp, days: u32) -> Timestamp {
    let (mut at, mut left) = (from, days);
    while left > 0 {
        let Ok(next) = at.checked_add(24.hours()) else { return at };
        at = next;
        let weekday = at.to_zoned(TimeZone::UTC).weekday();
        left -= u32::from(!matches!(weekday, Weekday::Saturday | Weekday::Sunday));
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_has_five_business_days() {
        for (ended, decided) in [
            ("2026-10-02T09:00:00Z", "2026-10-09T09:00:00Z"), // a Friday
            ("2026-10-03T09:00:00Z", "2026-10-09T09:00:00Z"), // a Saturday
            ("2026-10-05T09:00:00Z", "2026-10-12T09:00:00Z"), // a Monday
        ] {
            assert_eq!(business_days(ended.parse().unwrap(), 5), decided.parse().unwrap(), "{ended}");
        }
        assert_eq!(business_days(Timestamp::MAX, 5), Timestamp::MAX);
    }
}
