//! `--feature-gates`, which every component takes, and what the API server serves.

use super::config_file::ConfigFile;
use anyhow::{Context, Result};
use api::features::{Asked, Gates};
use apiserver::surface::{RuntimeConfig, Surface};
use clap::Args;
use std::collections::BTreeMap;

/// Which features are on.
#[derive(Clone, Debug, Default, Args)]
pub struct FeatureArgs {
    /// Features to turn on and off: NAME=true|false,… (repeatable)
    #[arg(long, value_name = "GATES")]
    feature_gates: Vec<Asked>,
}

impl FeatureArgs {
    /// Takes the `featureGates` of a configuration file, which count less than flags.
    ///
    /// # Errors
    /// An unknown gate.
    pub fn take_from(&mut self, file: &mut ConfigFile) -> Result<()> {
        if let Some(said) = file.take::<BTreeMap<String, bool>>("featureGates")? {
            let text: Vec<String> = said.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let asked = text.join(",").parse().map_err(anyhow::Error::msg).context("--config: featureGates")?;
            self.feature_gates.insert(0, asked);
        }
        Ok(())
    }

    /// The gates as they are now; what is to be said of them is said.
    ///
    /// # Errors
    /// What upstream refuses: unknown and locked gates, and gates without what they need.
    pub fn gates(&self) -> Result<Gates> {
        let (gates, told) = self.read()?;
        for text in told {
            tracing::warn!("--feature-gates: {text}");
        }
        Ok(gates)
    }

    fn read(&self) -> Result<(Gates, Vec<String>)> {
        let mut asked = Asked::default();
        self.feature_gates.iter().cloned().for_each(|other| asked.extend(other));
        asked.gates().map_err(anyhow::Error::msg).context("--feature-gates")
    }
}

/// What an API server serves.
#[derive(Clone, Debug, Default, Args)]
pub struct SurfaceArgs {
    #[command(flatten)]
    features: FeatureArgs,
    /// API versions to serve or not: GROUP/VERSION[/RESOURCE]=true|false, api/all, api/ga, api/beta, api/alpha (repeatable)
    #[arg(long, value_name = "APIS")]
    runtime_config: Vec<RuntimeConfig>,
}

impl SurfaceArgs {
    /// What comes of it.
    ///
    /// # Errors
    /// What upstream refuses.
    pub fn surface(&self) -> Result<Surface> {
        Ok(Surface { runtime: self.runtime()?, gates: self.features.gates()?, ..Surface::default() })
    }

    /// The gates alone, once [`SurfaceArgs::check`] has found nothing wrong with them.
    pub fn gates(&self) -> Gates {
        self.features.read().map(|(gates, _)| gates).unwrap_or_default()
    }

    /// Whether it can be used, before anything is begun.
    ///
    /// # Errors
    /// What upstream refuses.
    pub fn check(&self) -> Result<()> {
        self.runtime()?;
        self.features.read().map(drop)
    }

    fn runtime(&self) -> Result<RuntimeConfig> {
        let mut runtime = RuntimeConfig::default();
        self.runtime_config.iter().cloned().for_each(|other| runtime.extend(other));
        runtime.check().map_err(anyhow::Error::msg).context("--runtime-config")?;
        Ok(runtime)
    }
}
