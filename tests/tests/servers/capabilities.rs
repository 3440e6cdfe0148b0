//! The library's manual names a test for everything that it can do. Here these names are looked up.

use std::fs;
use std::path::{Path, PathBuf};

use walrecv_tests::run::{ScenarioResult, Scenarios};

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios.once("capabilities_are_proved_by_tests_that_exist", tests_exist)
}

/// Where a test is looked for.
struct Sources {
    /// The names of all scenarios are somewhere in here.
    scenarios: String,
    library: PathBuf,
    /// Programs of ordinary tests, the library's and ours.
    programs: Vec<PathBuf>,
}

impl Sources {
    fn read() -> std::io::Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let library = here.join("../pgwire-stream");
        let mut scenarios = String::new();
        collect(&here.join("tests/servers"), &mut scenarios)?;
        let mut programs = Vec::new();
        for folder in [library.join("tests"), here.join("tests")] {
            for file in folder.read_dir()? {
                programs.push(file?.path());
            }
        }
        Ok(Self { scenarios, library, programs })
    }

    /// Whether there is a scenario of this name, a unit test `module::function` of the library, or
    /// a function in a test program.
    fn has(&self, test: &str) -> bool {
        if self.scenarios.contains(&format!("\"{test}\",")) {
            return true;
        }
        let Some((module, function)) = test.rsplit_once("::") else {
            return self.programs.iter().any(|file| is_test(file, test));
        };
        let module = self.library.join("src").join(module.replace("::", "/"));
        [module.with_extension("rs"), module.join("mod.rs")]
            .iter()
            .any(|file| is_test(file, function))
    }
}

/// The text of all files, but for this one.
fn collect(folder: &Path, into: &mut String) -> std::io::Result<()> {
    for entry in folder.read_dir()? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, into)?;
        } else if !path.ends_with("capabilities.rs") {
            into.push_str(&fs::read_to_string(path)?);
        }
    }
    Ok(())
}

/// Whether a file has a test function of this name.
fn is_test(file: &Path, function: &str) -> bool {
    let Ok(text) = fs::read_to_string(file) else { return false };
    let Some((before, _)) = text.split_once(&format!("fn {function}(")) else { return false };
    // Its attributes are right above it.
    before.lines().rev().take(6).take_while(|line| *line != "}").any(|line| line.contains("test"))
}

/// The code spans of a table's cell.
fn names(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

fn tests_exist() -> ScenarioResult {
    let sources = Sources::read()?;
    let manual = sources.library.join("src/manual/capabilities.md");
    let text = fs::read_to_string(&manual)?;
    let mut rows = 0;
    for line in text.lines().filter(|line| line.starts_with('|')).skip(2) {
        let cell = line.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        assert!(names(cell).count() > 0, "nothing proves: {line}");
        for name in names(cell) {
            assert!(sources.has(name), "there is no test `{name}`, which shall prove: {line}");
        }
        rows += 1;
    }
    assert!(rows >= 40, "the table has only {rows} rows");

    assert!(!sources.has("library_can_fly"), "any scenario exists");
    assert!(!sources.has("client::tests::ending::pigs_fly"), "any unit test exists");
    Ok(())
}
