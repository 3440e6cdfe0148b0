//! `cargo xtask seeds`: makes the seeds of the fuzz targets anew, from throwaway servers of every
//! major: what they say, and what they write.
//!
//! A seed is small, so everything is shortened to what a decoder can learn from. Seeds that were
//! made by hand stay: ours begin with the name of a major, such as `pg14-`.

mod files;
mod scene;
mod shorten;
mod transcript;

use std::fs;
use std::path::PathBuf;

use walrecv_tests::installation::{self, MAJORS};
use walrecv_tests::{Context, Failure, Installation, Result};

use crate::paths;
use scene::Scene;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Major versions; all of 10 to 19 without any.
    majors: Vec<u32>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let wanted = |major: &u32| arguments.majors.is_empty() || arguments.majors.contains(major);
    for major in MAJORS.filter(wanted) {
        let Some(installation) = installation::of_major(major) else {
            return Err(Failure::new(format!("PostgreSQL {major} is not on this machine")));
        };
        let seeds = Seeds::of_major(major)?;
        make(installation, &seeds)
            .map_err(|failure| Failure::new(format!("PostgreSQL {major}: {failure}")))?;
        eprintln!("PostgreSQL {major}: done");
    }
    Ok(())
}

/// Everything that one server gives.
fn make(installation: &Installation, seeds: &Seeds) -> Result<()> {
    let mut scene = Scene::set(installation)?;
    files::of_cluster(&scene, seeds)?;
    for (name, conversation) in scene.record()? {
        transcript::write(name, &conversation, seeds)?;
    }
    Ok(())
}

/// The seeds of one major.
struct Seeds {
    prefix: String,
}

impl Seeds {
    /// Begins anew: those of an earlier run go.
    fn of_major(major: u32) -> Result<Self> {
        let seeds = Self { prefix: format!("pg{major}-") };
        let root = paths::fuzz().join("seeds");
        let about = || format!("cannot clear {}", root.display());
        for folder in fs::read_dir(&root).context(about)? {
            for file in fs::read_dir(folder.context(about)?.path()).context(about)? {
                let file = file.context(about)?;
                if file.file_name().to_string_lossy().starts_with(&seeds.prefix) {
                    fs::remove_file(file.path()).context(about)?;
                }
            }
        }
        Ok(seeds)
    }

    /// Writes a seed of a target.
    fn write(&self, target: &str, name: &str, bytes: &[u8]) -> Result<()> {
        let folder: PathBuf = paths::fuzz().join("seeds").join(target);
        let path = folder.join(format!("{}{name}", self.prefix));
        fs::create_dir_all(&folder)
            .and_then(|()| fs::write(&path, bytes))
            .context(|| format!("cannot write {}", path.display()))
    }

    /// Writes a seed of a target unless there is the same of another major.
    fn write_once(&self, target: &str, name: &str, bytes: &[u8]) -> Result<()> {
        let folder = paths::fuzz().join("seeds").join(target);
        let mut others = fs::read_dir(folder).into_iter().flatten().flatten();
        if others.any(|other| fs::read(other.path()).is_ok_and(|content| content == bytes)) {
            return Ok(());
        }
        self.write(target, name, bytes)
    }
}
