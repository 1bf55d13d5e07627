//! What the log says about how a request was routed.

use std::fmt;

/// A resolver's decision. Shared with the log's thread, which puts it into words: the worker that
/// made it does not have to.
pub trait Decision: fmt::Debug + Send + Sync {
    /// The resolver that decided, by its name in the configuration.
    fn resolver(&self) -> &str;

    /// Its rule, as it was named; empty: it was not.
    fn rule(&self) -> &str;

    /// Where the request goes, or why it goes nowhere, in a few words. Two decisions that read
    /// alike are alike: `ringport replay` compares them.
    fn in_words(&self) -> String;
}
