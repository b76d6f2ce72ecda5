//! Artifacts: compiled operators, from files, from bytes, or embedded by `attn!`.

use crate::arguments::Arguments;
use crate::element::Scalar;
use crate::error::Error;
use crate::launch::{self, Loaded};
use crate::operator::Operator;
use crate::tensor::{Input, Output};
use cudarc::driver::CudaContext;
use drawloom_lang::artifact::{ArtifactError, open, spec_of};
use drawloom_lang::manifest::Manifest;
use drawloom_lang::spec::Dtype;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// A compiled operator, checked: its manifest, its spec and its code.
#[derive(Clone, Debug)]
pub struct Artifact {
    operator: Arc<Operator>,
    manifest: Arc<Manifest>,
    payload: Arc<[u8]>,
}

impl Artifact {
    /// Reads `<name>-<key>.json` at `path` and `<name>-<key>.bin` beside it.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Artifact`].
    pub fn open(path: impl AsRef<Path>) -> Result<Artifact, Error> {
        let path = path.as_ref();
        let unread = |path: &Path, error: std::io::Error| Error::File {
            path: path.display().to_string(),
            reason: error.to_string(),
        };
        let manifest = std::fs::read_to_string(path).map_err(|error| unread(path, error))?;
        let payload = path.with_extension("bin");
        let payload = std::fs::read(&payload).map_err(|error| unread(&payload, error))?;
        Artifact::from_bytes(&manifest, &payload)
    }

    /// An artifact from its manifest and payload.
    ///
    /// # Errors
    /// [`Error::Artifact`] naming what does not hold: the ABI, a hash, the spec's key, an index.
    pub fn from_bytes(manifest: &str, payload: &[u8]) -> Result<Artifact, Error> {
        let manifest = open(manifest, payload)?;
        let operator = Operator::new(spec_of(&manifest)?)?;
        operator.check_manifest(&manifest)?;
        Ok(Artifact {
            operator: Arc::new(operator),
            manifest: Arc::new(manifest),
            payload: payload.into(),
        })
    }

    /// The operator.
    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The same artifact with only those variants for which `keep` holds, given the number of the instance and that of
    /// the variant in it: to force one variant, or to load less. Calls that only a dropped variant serves are refused.
    #[must_use]
    pub fn retain(&self, mut keep: impl FnMut(usize, usize) -> bool) -> Artifact {
        let mut manifest = Manifest::clone(&self.manifest);
        for (number, instance) in manifest.instances.iter_mut().enumerate() {
            let mut variant = 0;
            instance.variants.retain(|_| {
                variant += 1;
                keep(number, variant - 1)
            });
        }
        Artifact {
            operator: self.operator.clone(),
            manifest: Arc::new(manifest),
            payload: self.payload.clone(),
        }
    }

    /// Loads the kernels for these members of the spec's type sets, one per set in its order.
    ///
    /// # Safety
    /// The kernels run with the process's rights on the device: the artifact must come from the compiler, as a library
    /// that is linked must. Its hashes find damage, not malice.
    ///
    /// # Errors
    /// [`Error::NoDriver`], [`Error::TypesNotCompiled`], [`Error::NoCode`], [`Error::Load`] with the driver's log.
    pub unsafe fn load(&self, context: &Arc<CudaContext>, types: &[Dtype]) -> Result<Loaded, Error> {
        launch::load(
            self.operator.clone(),
            self.manifest.clone(),
            &self.payload,
            context,
            types,
        )
    }

    /// Runs the CPU form on host memory, with arguments by name. The types of the type sets are those of the arguments.
    ///
    /// # Errors
    /// Whatever is wrong with the call.
    pub fn cpu(
        &self,
        inputs: &[(&str, &dyn Input)],
        scalars: &[(&str, Scalar)],
        outputs: &mut [(&str, &mut dyn Output)],
    ) -> Result<(), Error> {
        let arguments = Arguments::named(&self.operator, inputs, scalars, outputs)?;
        self.operator.cpu(arguments)
    }
}

/// An operator that `attn!` embeds: its spec, and its artifact if it was prepared.
#[derive(Debug)]
pub struct Embedded {
    /// Name.
    pub name: &'static str,
    /// Canonical text.
    pub spec: &'static str,
    /// Manifest and payload.
    pub artifact: Option<(&'static str, &'static [u8])>,
    /// What makes the artifact.
    pub command: &'static str,
    /// Made at the first use.
    pub operator: OnceLock<Result<Arc<Operator>, Error>>,
    /// Made at the first load.
    pub opened: OnceLock<Result<Artifact, Error>>,
}

impl Embedded {
    /// An operator with nothing read yet.
    pub const fn new(
        name: &'static str,
        spec: &'static str,
        artifact: Option<(&'static str, &'static [u8])>,
        command: &'static str,
    ) -> Embedded {
        Embedded {
            name,
            spec,
            artifact,
            command,
            operator: OnceLock::new(),
            opened: OnceLock::new(),
        }
    }

    /// The operator, which needs the spec alone.
    ///
    /// # Errors
    /// [`Error::Artifact`] if the text is no spec, [`Error::Limit`]; `attn!` lets neither through.
    pub fn operator(&self) -> Result<&Operator, Error> {
        let made = self.operator.get_or_init(|| {
            let specs = drawloom_lang::parse_str(self.name, self.spec)
                .map_err(|errors| ArtifactError::Spec(errors.to_string()))?;
            let spec = specs.into_iter().next();
            let spec = spec.ok_or_else(|| ArtifactError::Spec("there is none".to_owned()))?;
            Ok(Arc::new(Operator::new(spec)?))
        });
        made.as_ref().map(Arc::as_ref).map_err(Clone::clone)
    }

    /// Loads the kernels for these members of the spec's type sets.
    ///
    /// # Errors
    /// [`Error::NotPrepared`] without an artifact, otherwise as [`Artifact::load`].
    pub fn load(&self, context: &Arc<CudaContext>, types: &[Dtype]) -> Result<Loaded, Error> {
        let (manifest, payload) = self.artifact.ok_or(Error::NotPrepared {
            name: self.name,
            command: self.command,
        })?;
        let opened = self.opened.get_or_init(|| Artifact::from_bytes(manifest, payload));
        let artifact = opened.as_ref().map_err(Clone::clone)?;
        // SAFETY: the artifact is part of the program, found and hashed by `attn!` when it was built.
        unsafe { artifact.load(context, types) }
    }

    /// Runs the CPU form.
    ///
    /// # Errors
    /// Whatever is wrong with the call.
    pub fn cpu(&self, arguments: Arguments<'_>) -> Result<(), Error> {
        self.operator()?.cpu(arguments)
    }
}
