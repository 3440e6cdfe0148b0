//! Servers with all client programs from other Debian suites, for the majors that the system's
//! own suite does not have.
//!
//! They want another C library than the system's, so they are unpacked and not installed: an
//! apt with a state directory of its own resolves and downloads the packages, `dpkg-deb`
//! unpacks them into the cache, and `patchelf` points each program at the loader and the
//! libraries that came with it. Nothing outside the cache changes. The programs carry absolute
//! paths: the cache must not be moved. The versions float with the suites.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use walrecv_tests::installation::Source;
use walrecv_tests::{Context, Result, program};

use super::cache::{self, Cache};
use super::{Item, Outcome};

/// Major and the suites that have it.
const SUITES: [(u32, &[&str]); 4] =
    [(13, &["bullseye"]), (17, &["trixie"]), (18, &["sid"]), (19, &["sid", "experimental"])];

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

pub(super) fn item(major: u32) -> Option<Item> {
    let (_, suites) = *SUITES.iter().find(|(known, _)| *known == major)?;
    let version = suites.join("+");
    Some(Item::new(format!("Debian {version} postgresql-{major}"), move |cache| {
        let place = cache.place(Source::Debian, major);
        if cache::is_complete(&place, &version) {
            return Ok(Outcome::Present);
        }
        install(cache, &place, major, suites)?;
        cache::complete(&place, &version)?;
        Ok(Outcome::Installed)
    }))
}

fn install(cache: &Cache, place: &Path, major: u32, suites: &[&str]) -> Result<()> {
    if !cfg!(target_arch = "x86_64") || !Path::new(KEYRING).exists() {
        return super::unsuitable("only on Debian on x86-64");
    }
    let patchelf = program::find_on_path("patchelf")
        .context(|| "`patchelf` is not installed (apt-get install patchelf)".to_owned())?;
    let scratch = cache.scratch()?;
    let apt = Apt::prepare(scratch.path(), suites)?;
    let packages =
        apt.download(&[&format!("postgresql-{major}"), &format!("postgresql-client-{major}")])?;

    cache::clear(place)?;
    fs::create_dir(place).context(|| format!("cannot make {}", place.display()))?;
    for package in packages {
        program::run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(place))?;
    }
    remove_unneeded(place, major)?;
    use_own_libraries(place, &patchelf, &place.join(format!("usr/lib/postgresql/{major}/bin")))
}

/// An apt that knows other suites, and nothing of what this system has installed.
struct Apt {
    root: PathBuf,
    options: Vec<String>,
}

impl Apt {
    fn prepare(root: &Path, suites: &[&str]) -> Result<Self> {
        for directory in ["lists/partial", "cache/archives/partial", "debs", "none"] {
            let directory = root.join(directory);
            fs::create_dir_all(&directory)
                .context(|| format!("cannot make {}", directory.display()))?;
        }
        let mirror = own_mirror()?;
        let sources: String = suites
            .iter()
            .map(|suite| format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n"))
            .collect();
        let preferences = if suites.contains(&"experimental") {
            "Package: postgresql* libpq*\nPin: release a=experimental\nPin-Priority: 990\n"
        } else {
            ""
        };
        for (name, content) in
            [("sources", sources.as_str()), ("preferences", preferences), ("status", "")]
        {
            let path = root.join(name);
            fs::write(&path, content).context(|| format!("cannot write {}", path.display()))?;
        }
        let at = |name: &str| root.join(name).display().to_string();
        let mut settings = vec![
            ("Dir::State", at("")),
            ("Dir::State::lists", at("lists")),
            ("Dir::State::status", at("status")),
            ("Dir::Cache", at("cache")),
            ("Dir::Etc::sourcelist", at("sources")),
            ("Dir::Etc::sourceparts", at("none")),
            ("Dir::Etc::preferences", at("preferences")),
            ("Dir::Etc::preferencesparts", at("none")),
            ("APT::Install-Recommends", "false".to_owned()),
            ("Acquire::Languages", "none".to_owned()),
            ("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false".to_owned()),
            ("Debug::NoLocking", "1".to_owned()),
        ];
        if rustix::process::geteuid().is_root() {
            settings.push(("APT::Sandbox::User", "root".to_owned()));
        }
        let options = settings
            .into_iter()
            .flat_map(|(name, value)| ["-o".to_owned(), format!("{name}={value}")])
            .collect();
        let apt = Self { root: root.to_owned(), options };
        program::run(apt.get().args(["-qq", "update"]))?;
        Ok(apt)
    }

    fn get(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.args(&self.options);
        command
    }

    /// Downloads packages and the libraries they need; returns the files.
    fn download(&self, wanted: &[&str]) -> Result<Vec<PathBuf>> {
        let plan = program::run(self.get().args(["-s", "install"]).args(wanted))?;
        let libraries = plan
            .lines()
            .filter_map(|line| line.strip_prefix("Inst "))
            .filter_map(|rest| rest.split_whitespace().next())
            .filter(|name| name.starts_with("lib") || name.starts_with("zlib"))
            // Perl and LLVM serve PL/Perl and JIT: large, and not needed.
            .filter(|name| {
                !name.contains("perl") && *name != "libc-bin" && !name.starts_with("libllvm")
            });
        let debs = self.root.join("debs");
        program::run(
            self.get().args(["-qq", "download"]).args(wanted).args(libraries).current_dir(&debs),
        )?;
        let listing = fs::read_dir(&debs).context(|| format!("cannot read {}", debs.display()))?;
        Ok(listing.flatten().map(|entry| entry.path()).collect())
    }
}

/// The mirror that this system's own apt is configured with.
fn own_mirror() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release")
        .context(|| "cannot read /etc/os-release".to_owned())?;
    let codename = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"'))
        .context(|| "/etc/os-release has no VERSION_CODENAME".to_owned())?;
    let targets = program::run(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(RELEASE)",
        "Created-By: Packages",
    ]))?;
    targets
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(_, suite)| *suite == codename)
        .map(|(mirror, _)| mirror.to_owned())
        .context(|| format!("apt is not configured with a mirror of {codename}"))
}

fn remove_unneeded(place: &Path, major: u32) -> Result<()> {
    for name in ["doc", "man", "locale", "i18n"] {
        remove(&place.join("usr/share").join(name))?;
    }
    let library = place.join(format!("usr/lib/postgresql/{major}/lib"));
    for name in ["llvmjit.so", "llvmjit_types.bc", "bitcode"] {
        remove(&library.join(name))?;
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    let result = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Points the programs in `bindir` at the loader and the libraries unpacked with them.
fn use_own_libraries(place: &Path, patchelf: &Path, bindir: &Path) -> Result<()> {
    let (new, old) = (place.join("usr/lib/x86_64-linux-gnu"), place.join("lib/x86_64-linux-gnu"));
    let loader = [&new, &old]
        .into_iter()
        .map(|directory| directory.join("ld-linux-x86-64.so.2"))
        .find(|loader| loader.exists())
        .context(|| "no loader among the unpacked libraries".to_owned())?;
    let libraries = format!("{}:{}", new.display(), old.display());
    let listing = fs::read_dir(bindir).context(|| format!("cannot read {}", bindir.display()))?;
    for program in listing.flatten().map(|entry| entry.path()).filter(|path| is_elf(path)) {
        // DT_RPATH, not DT_RUNPATH: it also serves the libraries that the server loads later.
        program::run(
            Command::new(patchelf)
                .arg("--set-interpreter")
                .arg(&loader)
                .args(["--force-rpath", "--set-rpath", &libraries])
                .arg(&program),
        )?;
    }
    Ok(())
}

fn is_elf(path: &Path) -> bool {
    let mut magic = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok()
        && magic == *b"\x7fELF"
}
