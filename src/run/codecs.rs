//! The codecs of a run's models, each loaded once, however many of its models read text alike.

use std::rc::Rc;

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

    fn loaded(&mut self, reference: &ResolvedReference) -> anyhow::Result<&mut Loaded> {
        let fingerprint = text_fingerprint(&reference.location).map_err(|e| unusable(reference, &e))?;
        let found = self.loaded.iter().position(|loaded| loaded.fingerprint == fingerprint);
        let at = match found {
            Some(at) => at,
            None => {
                let codec = Codec::load(&reference.location).map_err(|e| unusable(reference, &e))?;
                self.loaded.push(Loaded { fingerprint, codec: Rc::new(codec), rows: None });
                self.loaded.len() - 1
            }
        };
        Ok(&mut self.loaded[at])
    }
}
