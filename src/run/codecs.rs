//! The codecs of a run's models, each loaded once, however many of its models read text alike.

use std::rc::Rc;

use rayon::prelude::*;

use super::{prepare::Prepared, references::unusable};
use crate::{
    domain::ResolvedReference,
    text::{Codec, text_fingerprint},
};

/// The names of a data set's rows in one rendering: for each pair a digest per completion.
pub(super) type Rows = Rc<Vec<Vec<String>>>;

/// The codecs loaded so far.
#[derive(Default)]
pub(super) struct Codecs {
    loaded: Vec<Loaded>,
}

struct Loaded {
    fingerprint: [u8; 32],
    codec: Rc<Codec>,
    /// Of the run's pairs; references that render alike share them.
    rows: Option<Rows>,
}

impl Codecs {
    /// A model's codec.
    pub(super) fn of(&mut self, reference: &ResolvedReference) -> anyhow::Result<Rc<Codec>> {
        Ok(self.loaded(reference)?.codec.clone())
    }

    /// A model's codec and the names of the run's rows in its rendering; `pairs` are the same in every call.
    pub(super) fn rows_of(
        &mut self,
        reference: &ResolvedReference,
        pairs: &[&Prepared],
    ) -> anyhow::Result<(Rc<Codec>, Rows)> {
        let loaded = self.loaded(reference)?;
        let rows = match &loaded.rows {
            Some(rows) => rows.clone(),
            None => {
                let digests = pairs.iter().map(|pair| pair.row_digests(&loaded.codec));
                let rows = Rc::new(digests.collect::<Result<Vec<_>, _>>().map_err(|e| unusable(reference, &e))?);
                loaded.rows.insert(rows).clone()
            }
        };
        Ok((loaded.codec.clone(), rows))
    }

    /// Loads the codecs of these models that are not loaded yet, side by side: a large vocabulary takes a while.
    pub(super) fn load_all<'a>(
        &mut self,
        references: impl IntoIterator<Item = &'a ResolvedReference>,
    ) -> anyhow::Result<()> {
        let mut missing: Vec<([u8; 32], &ResolvedReference)> = Vec::new();
        for reference in references {
            let fingerprint = text_fingerprint(&reference.location).map_err(|e| unusable(reference, &e))?;
            if self.position(fingerprint).is_none() && missing.iter().all(|(other, _)| *other != fingerprint) {
                missing.push((fingerprint, reference));
            }
        }
        self.load(missing)
    }

    fn load(&mut self, missing: Vec<([u8; 32], &ResolvedReference)>) -> anyhow::Result<()> {
        let codecs = missing.par_iter().map(|(_, reference)| Codec::load(&reference.location)).collect::<Vec<_>>();
        for ((fingerprint, reference), codec) in missing.into_iter().zip(codecs) {
            let codec = codec.map_err(|e| unusable(reference, &e))?;
            self.loaded.push(Loaded { fingerprint, codec: Rc::new(codec), rows: None });
        }
        Ok(())
    }

    fn loaded(&mut self, reference: &ResolvedReference) -> anyhow::Result<&mut Loaded> {
        let fingerprint = text_fingerprint(&reference.location).map_err(|e| unusable(reference, &e))?;
        if self.position(fingerprint).is_none() {
            self.load(vec![(fingerprint, reference)])?;
        }
        let at = self.position(fingerprint).expect("just loaded");
        Ok(&mut self.loaded[at])
    }

    fn position(&self, fingerprint: [u8; 32]) -> Option<usize> {
        self.loaded.iter().position(|loaded| loaded.fingerprint == fingerprint)
    }
}
