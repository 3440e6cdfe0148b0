//! What is printed in the end.

use super::campaign::Outcome;
use super::coverage::{Coverage, total};
use super::target::Target;
use crate::table::align;

/// How fast the targets were, and what they found.
pub(super) fn campaigns(targets: &[Target], outcomes: &[Outcome]) -> String {
    let heading = ["target", "executions", "per CPU second", "CPU seconds", "corpus", "finds"];
    let mut rows = vec![heading.map(String::from)];
    let mut finds = Vec::new();
    for (target, outcome) in targets.iter().zip(outcomes) {
        let seconds = outcome.cpu.as_secs_f64();
        rows.push([
            target.name.clone(),
            grouped(outcome.executions),
            grouped((outcome.executions as f64 / seconds.max(0.01)) as u64),
            format!("{seconds:.0}"),
            grouped(outcome.corpus as u64),
            usize::from(outcome.find.is_some()).to_string(),
        ]);
        if let Some(find) = &outcome.find {
            let (find, log) = (find.display(), outcome.log.display());
            finds.push(format!("{} failed: {find}\n  its log: {log}", target.name));
        }
    }
    let mut lines = align(&rows);
    lines.append(&mut finds);
    lines.join("\n") + "\n"
}

/// How much of its decoders a target reached.
pub(super) fn coverage(target: &Target, files: &[Coverage]) -> String {
    let mut rows = vec![[&target.name, "regions", "reached", ""].map(String::from)];
    for file in files.iter().chain([&total(files)]) {
        rows.push([
            file.file.clone(),
            file.regions.to_string(),
            file.reached.to_string(),
            file.percent(),
        ]);
    }
    format!("\n{}\n", align(&rows).join("\n"))
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        let shown = [0, 999, 1000, 1_234_567].map(grouped);
        assert_eq!(shown, ["0", "999", "1 000", "1 234 567"]);
    }
}
