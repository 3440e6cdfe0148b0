//! What was measured of several contenders.

use super::figures::Figures;

/// One figure of every contender.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) decimals: usize,
}

/// The figures of all contenders, in the order in which they first ran.
#[derive(Debug)]
pub(super) struct Board {
    columns: &'static [Column],
    rows: Vec<(String, Vec<Figures>)>,
}

impl Board {
    pub(super) fn new(columns: &'static [Column]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// What one run measured, a figure for each column; none where it makes no sense.
    pub(super) fn add<const COLUMNS: usize>(
        &mut self,
        contender: &str,
        figures: [Option<f64>; COLUMNS],
    ) {
        debug_assert_eq!(COLUMNS, self.columns.len());
        let known = self.rows.iter().position(|(name, _)| name == contender);
        let at = known.unwrap_or_else(|| {
            self.rows.push((contender.to_owned(), vec![Figures::default(); self.columns.len()]));
            self.rows.len() - 1
        });
        let Some((_, row)) = self.rows.get_mut(at) else { return };
        for (cell, figure) in row.iter_mut().zip(figures) {
            if let Some(figure) = figure {
                cell.push(figure);
            }
        }
    }

    pub(super) fn median(&self, contender: &str, column: &str) -> Option<f64> {
        let at = self.columns.iter().position(|known| known.name == column)?;
        let (_, row) = self.rows.iter().find(|(name, _)| name == contender)?;
        row.get(at)?.median()
    }

    /// As a table, with the number of rounds in its last column.
    pub(super) fn table(&self) -> Vec<Vec<String>> {
        let names = self.columns.iter().map(|column| column.name);
        let heading = ["contender"].into_iter().chain(names).chain(["n"]);
        let mut table = vec![heading.map(str::to_owned).collect()];
        for (contender, row) in &self.rows {
            let cells = self.columns.iter().zip(row);
            let cells = cells.map(|(column, figures)| figures.show(column.decimals));
            let rounds = row.iter().map(Figures::count).max().unwrap_or_default();
            let line = [contender.clone()].into_iter().chain(cells).chain([rounds.to_string()]);
            table.push(line.collect());
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_of_a_contender_come_together() {
        const COLUMNS: &[Column] =
            &[Column { name: "wall s", decimals: 2 }, Column { name: "RSS MiB", decimals: 0 }];
        let mut board = Board::new(COLUMNS);
        for (contender, wall, rss) in
            [("a", 4.0, Some(8.0)), ("b", 2.0, None), ("a", 5.0, Some(9.0)), ("a", 6.0, Some(7.0))]
        {
            board.add(contender, [Some(wall), rss]);
        }
        assert_eq!(board.median("a", "wall s"), Some(5.0));
        assert_eq!(board.median("b", "RSS MiB"), None);
        assert_eq!(board.median("c", "wall s"), None);
        assert_eq!(
            board.table(),
            [
                vec!["contender", "wall s", "RSS MiB", "n"],
                vec!["a", "5.00 (4.00–6.00)", "8 (7–9)", "3"],
                vec!["b", "2.00", "–", "1"],
            ]
        );
    }
}
