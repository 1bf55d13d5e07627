//! What `configure` is handed, laid out so that it can be spoilt after the call.

use ringport_plugin_abi as abi;

use crate::frame::{EmptyAt, Grown, Shape, Text, spoilt_str};
use crate::host::HostVersion;
use crate::world::World;

/// Sizes in 1.0.
const ARGS_1_0: u32 = 56;
const UPSTREAM_1_0: u32 = 40;

/// `ringport_configure_args` with everything it points at, in memory of its own.
#[derive(Debug)]
pub(crate) struct Setup {
    texts: Vec<Text>,
    arrays: Vec<Vec<abi::Str>>,
    upstreams: Vec<Grown<abi::Upstream>>,
    pointers: Vec<*const abi::Upstream>,
    args: Box<Grown<abi::ConfigureArgs>>,
}

impl Setup {
    pub(crate) fn new(world: &World, version: HostVersion, worker_count: u32) -> Setup {
        let shape = match version {
            HostVersion::Same | HostVersion::Later => Shape::Exact,
            HostVersion::SameLarger => Shape::Later,
            HostVersion::Old => Shape::Old,
        };
        let mut own = Memory::default();
        let unknown_flag = if version == HostVersion::Later { 1 << 31 } else { 0 };
        let mut upstreams = Vec::new();
        for upstream in &world.upstreams {
            let (aliases, alias_count) = own.array(&upstream.aliases);
            let (mut credentials, mut credential_count) = own.array(&upstream.credentials);
            if shape == Shape::Old {
                (credentials, credential_count) = (std::ptr::without_provenance(8), 7);
            }
            upstreams.push(Grown::new(abi::Upstream {
                size: Grown::<abi::Upstream>::size(shape, UPSTREAM_1_0),
                flags: upstream.flags() | unknown_flag,
                canonical_name: own.string(&upstream.canonical_name),
                aliases,
                alias_count,
                credentials,
                credential_count,
            }));
        }
        let pointers: Vec<*const abi::Upstream> =
            upstreams.iter().map(|upstream| (&raw const *upstream).cast()).collect();
        let (mut pools, mut pool_count) = own.array(&world.pools);
        let (remote_tiers, remote_tier_count) = own.array(&world.remote_tiers);
        if shape == Shape::Old {
            (pools, pool_count) = (std::ptr::without_provenance(8), 7);
        }
        let args = Box::new(Grown::new(abi::ConfigureArgs {
            size: Grown::<abi::ConfigureArgs>::size(shape, ARGS_1_0),
            worker_count,
            name: own.string("checked"),
            config: own.string(&world.config),
            upstreams: pointers.as_ptr(),
            upstream_count: pointers.len(),
            pools,
            pool_count,
            remote_tiers,
            remote_tier_count,
        }));
        Setup { texts: own.texts, arrays: own.arrays, upstreams, pointers, args }
    }

    pub(crate) fn as_ptr(&self) -> *const abi::ConfigureArgs {
        (&raw const *self.args).cast()
    }

    /// Overwrites all of it, as a host may after the call.
    pub(crate) fn spoil(&mut self) {
        self.texts.iter_mut().for_each(Text::spoil);
        self.arrays.iter_mut().flatten().for_each(|string| *string = spoilt_str());
        for upstream in &mut self.upstreams {
            upstream.known.canonical_name = spoilt_str();
            upstream.known.alias_count = 0;
            upstream.known.credential_count = 0;
        }
        self.pointers.fill(std::ptr::without_provenance(8));
        let args = &mut self.args.known;
        (args.name, args.config) = (spoilt_str(), spoilt_str());
        (args.upstreams, args.pools) = (std::ptr::null(), std::ptr::null());
        (args.upstream_count, args.pool_count, args.remote_tier_count) = (0, 0, 0);
    }
}

/// Strings and arrays of them, which stay where they are while the vectors grow.
#[derive(Default)]
struct Memory {
    texts: Vec<Text>,
    arrays: Vec<Vec<abi::Str>>,
}

impl Memory {
    fn string(&mut self, text: &str) -> abi::Str {
        let text = Text::new(text.as_bytes());
        let string = text.as_abi(EmptyAt::Null);
        self.texts.push(text);
        string
    }

    fn array(&mut self, texts: &[String]) -> (*const abi::Str, usize) {
        let strings: Vec<abi::Str> = texts.iter().map(|text| self.string(text)).collect();
        let (first, count) = (strings.as_ptr(), strings.len());
        self.arrays.push(strings);
        if count == 0 { (std::ptr::null(), 0) } else { (first, count) }
    }
}
