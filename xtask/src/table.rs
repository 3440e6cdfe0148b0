//! Text in columns.

/// The rows with their cells aligned: numbers to the right, the rest to the left. All rows are as
/// long as the first, which is the heading.
pub(crate) fn align<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> Vec<String> {
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; COLUMNS]| {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| match is_number(cell) {
                true => format!("{cell:>width$}"),
                false => format!("{cell:width$}"),
            })
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn is_number(cell: &str) -> bool {
    cell.chars().all(|c| c.is_ascii_digit() || c == ' ' || c == '.' || c == '%')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_at_the_right() {
        let rows = [["target", "runs"], ["a", "7"], ["manifest", "1 234 567"]];
        let rows = rows.map(|row| row.map(String::from));
        assert_eq!(align(&rows), ["target    runs", "a                 7", "manifest  1 234 567"]);
    }
}
