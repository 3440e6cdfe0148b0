//! What the product is to reach, and whether it did. Nothing fails when it did not: a figure holds
//! for one machine in one hour.

use super::board::Board;

/// A bound.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted {
    AtMost(f64),
    AtLeast(f64),
    /// Only the figure is of interest.
    Nothing,
}

/// One bar: a figure of a contender, or what it is as a multiple of another contender's.
#[derive(Debug, Clone)]
pub(super) struct Bar {
    pub(super) figure: &'static str,
    pub(super) contender: String,
    pub(super) compared_with: Option<String>,
    pub(super) wanted: Wanted,
}

impl Bar {
    /// How many times the other's figure this one may, or is to, be.
    pub(super) fn ratio(
        figure: &'static str,
        contender: impl Into<String>,
        other: impl Into<String>,
        wanted: Wanted,
    ) -> Self {
        Self { figure, contender: contender.into(), compared_with: Some(other.into()), wanted }
    }

    /// What this figure may, or is to, be.
    pub(super) fn absolute(
        figure: &'static str,
        contender: impl Into<String>,
        wanted: Wanted,
    ) -> Self {
        Self { figure, contender: contender.into(), compared_with: None, wanted }
    }

    fn measured(&self, board: &Board) -> Option<f64> {
        let own = board.median(&self.contender, self.figure)?;
        match &self.compared_with {
            Some(other) => Some(own / board.median(other, self.figure)?),
            None => Some(own),
        }
    }
}

/// As a table.
pub(super) fn table(bars: &[Bar], board: &Board) -> Vec<Vec<String>> {
    let heading = ["contender", "figure", "compared with", "measured", "wanted", "reached"];
    let mut table = vec![heading.map(str::to_owned).to_vec()];
    for bar in bars {
        let unit = if bar.compared_with.is_some() { "×" } else { "" };
        let measured = bar.measured(board);
        let (wanted, holds) = match bar.wanted {
            Wanted::AtMost(most) => (format!("≤ {most:.2}{unit}"), measured.map(|x| x <= most)),
            Wanted::AtLeast(least) => (format!("≥ {least:.2}{unit}"), measured.map(|x| x >= least)),
            Wanted::Nothing => (String::new(), None),
        };
        let reached = match (measured, holds) {
            (None, _) => "not measured",
            (Some(_), None) => "",
            (Some(_), Some(true)) => "yes",
            (Some(_), Some(false)) => "no",
        };
        table.push(vec![
            bar.contender.clone(),
            bar.figure.to_owned(),
            bar.compared_with.clone().unwrap_or_default(),
            measured.map_or("–".to_owned(), |measured| format!("{measured:.2}{unit}")),
            wanted,
            reached.to_owned(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::board::Column;
    use super::*;

    #[test]
    fn figures_are_held_against_their_bars() {
        const COLUMNS: &[Column] = &[Column { name: "wall s", decimals: 2 }];
        let mut board = Board::new(COLUMNS);
        board.add("we", [Some(2.0)]);
        board.add("they", [Some(4.0)]);
        let bars = [
            Bar::ratio("wall s", "we", "they", Wanted::AtMost(0.55)),
            Bar::ratio("wall s", "we", "they", Wanted::AtLeast(0.55)),
            Bar::absolute("wall s", "we", Wanted::AtMost(2.0)),
            Bar::ratio("wall s", "we", "nobody", Wanted::AtMost(1.0)),
            Bar::ratio("wall s", "they", "we", Wanted::Nothing),
        ];
        let table = table(&bars, &board);
        assert_eq!(table[1], ["we", "wall s", "they", "0.50×", "≤ 0.55×", "yes"]);
        assert_eq!(table[2], ["we", "wall s", "they", "0.50×", "≥ 0.55×", "no"]);
        assert_eq!(table[3], ["we", "wall s", "", "2.00", "≤ 2.00", "yes"]);
        assert_eq!(table[4], ["we", "wall s", "nobody", "–", "≤ 1.00×", "not measured"]);
        assert_eq!(table[5], ["they", "wall s", "we", "2.00×", "", ""]);
    }
}
