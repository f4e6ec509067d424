// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The patches of one cVM.
//!
//! One lock guards everything except the landings, which signal handlers read without it; no other lock is taken while
//! it is held.
//!
//! A patch is *live*: its bytes stand in the program. It becomes *retired* when they are taken back while tasks may still be in
//! its stub, which therefore stays. It ends when its code is forgotten, or is found to have been overwritten.

use crate::area::{NoPlace, StubArea};
use crate::error::{PatchError, TableError};
use crate::instruction::{SYSCALL, displacement};
use crate::landing::{Landing, Landings};
use crate::memory::{CodeAccess, CodeMemory, Mapped};
use crate::plan::{self, JUMP, PAGE, Plan, Surroundings};
use crate::stub;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Least size of a stub area: a place where each of the guarded bytes can be an undefined opcode needs some choice.
const LEAST_AREA: u64 = 4096;
/// How many patches a table holds.
const MOST_PATCHES: usize = 32768;
/// How many refused system calls it remembers.
const MOST_REFUSALS: usize = 4096;
/// Bytes between the first and the last that one patch concerns, at most.
const LONGEST_SPAN: u64 = 512;
/// How often a system call that is patched but still in place may trap before it is patched a second time, because the
/// program jumps directly to it.
const TRAPS_TOLERATED: u32 = 4;

/// Finds ways to patch a system call, best first.
type Planner = fn(&Surroundings) -> Vec<Plan>;

/// How a system call instruction was patched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PatchKind {
    /// One instruction before it became the jump; the system call itself is still there.
    Preceding,
    /// It became a short jump to unused padding nearby, which holds the jump.
    Cave,
    /// It and instructions after it became the jump.
    Following,
    /// Several instructions before it, perhaps with itself and some after it, became the jump.
    Several,
}

/// Which way [`PatchTable::translate`] goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From where the processor is to where an unpatched program would be.
    ToProgram,
    /// From an address of the unpatched program to where to resume.
    ToPatched,
    /// From an instruction that the processor refused to where to resume, see [`PatchTable::on_invalid_opcode`].
    Refused,
}

impl Direction {
    /// The direction with this number in the hostcall `TranslateIp`.
    pub const fn from_number(number: u64) -> Option<Direction> {
        match number {
            capstream_abi::TRANSLATE_TO_PROGRAM => Some(Direction::ToProgram),
            capstream_abi::TRANSLATE_TO_PATCHED => Some(Direction::ToPatched),
            capstream_abi::TRANSLATE_REFUSED => Some(Direction::Refused),
            _ => None,
        }
    }
}

/// What a table holds and did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Patches of [`PatchKind::Preceding`] made.
    pub preceding: u64,
    /// Patches of [`PatchKind::Cave`] made.
    pub cave: u64,
    /// Patches of [`PatchKind::Following`] made.
    pub following: u64,
    /// Patches of [`PatchKind::Several`] made.
    pub several: u64,
    /// Requests that were refused because no pattern fits.
    pub no_pattern: u64,
    /// Requests that were refused for lack of room.
    pub no_room: u64,
    /// Traps of system calls that were already patched.
    pub traps_after_patch: u64,
    /// Patches that ended because their code was forgotten.
    pub forgotten: u64,
    /// Patches that ended because the program had overwritten them.
    pub overwritten: u64,
    /// Patches whose jump was written once more, to another copy of the same code.
    pub applied_again: u64,
    /// How often a program landed inside a patch and was led to the stub.
    pub landings: u64,
    /// Patches in place now.
    pub live: u64,
    /// Bytes of the stub area in use now.
    pub stub_bytes: u64,
}

/// Up to five bytes that were written to a program.
#[derive(Clone, Copy, Debug)]
struct Edit {
    at: u64,
    len: usize,
    old: [u8; 5],
    new: [u8; 5],
}

impl Edit {
    fn range(&self) -> Range<u64> {
        self.at..self.at + self.len as u64
    }

    fn old(&self) -> &[u8] {
        self.old.get(..self.len).unwrap_or(&self.old)
    }

    fn new_bytes(&self) -> &[u8] {
        self.new.get(..self.len).unwrap_or(&self.new)
    }

    fn intact(&self, memory: &CodeMemory) -> bool {
        let mut bytes = [0; 5];
        let now = bytes.get_mut(..self.len).unwrap_or_default();
        memory.read(self.at, now) && now == self.new_bytes()
    }

    /// Whether the bytes are what they were before.
    fn is_undone(&self, memory: &CodeMemory) -> bool {
        let mut bytes = [0; 5];
        let now = bytes.get_mut(..self.len).unwrap_or_default();
        memory.read(self.at, now) && now == self.old()
    }

    /// Puts the old bytes back, except those in `gone`.
    fn undo(&self, memory: &CodeMemory, gone: &Range<u64>) {
        if !self.intact(memory) {
            return;
        }
        for (at, byte) in (self.at..).zip(self.old()) {
            // The edit was written, so its bytes are in the code range.
            let _ = gone.contains(&at) || memory.write(at, &[*byte]);
        }
    }
}

/// One patched system call.
#[derive(Debug)]
struct Patch {
    kind: PatchKind,
    /// The system call instruction.
    site: u64,
    /// What was written; empty when the patch is retired.
    edits: Vec<Edit>,
    /// The displaced instructions of a live patch, which no other patch may change.
    displaced: Vec<Range<u64>>,
    /// From the first to the last byte that it concerns.
    span: Range<u64>,
    /// Its stub.
    place: Range<u64>,
    /// See [`stub::Stub`].
    to_program: Vec<(u64, u64)>,
    /// See [`stub::Stub`].
    to_patched: Vec<(u64, u64)>,
    /// How often the system call trapped since.
    traps: u32,
}

/// A patch that is not written yet.
struct Prepared {
    stub: stub::Stub,
    jump: [u8; 5],
    edits: Vec<Edit>,
    /// From the first to the last byte that it concerns.
    span: Range<u64>,
}

/// What the lock guards.
#[derive(Debug)]
struct State {
    area: StubArea,
    next_id: u64,
    patches: BTreeMap<u64, Patch>,
    /// Where patches span: (first address, id).
    spans: BTreeSet<(u64, u64)>,
    /// What live patches displace: begin to (end, id). These ranges do not overlap.
    displaced: BTreeMap<u64, (u64, u64)>,
    /// Stubs: begin to id.
    stubs: BTreeMap<u64, u64>,
    /// Patches that leave the system call in place: its address to id.
    in_place: HashMap<u64, u64>,
    /// System calls that cannot be patched, why, and the bytes around them when that was found.
    refused: BTreeMap<u64, (PatchError, [u8; 16])>,
    stats: Stats,
}

/// The patches of one cVM.
#[derive(Debug)]
pub struct PatchTable {
    memory: CodeMemory,
    kernel: u64,
    landings: Landings,
    landed: AtomicU64,
    state: Mutex<State>,
}

impl PatchTable {
    /// Makes an empty table which writes stubs to the `len` bytes at `stub_area`, patches instructions in `code`
    /// only, and enters the kernel at `kernel_syscall_entry`.
    ///
    /// Patches can be made where the stub area is less than 2 GiB away.
    ///
    /// # Safety
    ///
    /// Until the table is dropped:
    /// - all of the stub area and of `code` is mapped, readable and writable, and holds no Rust objects;
    /// - nobody else writes to the stub area or relies on its contents;
    /// - during [`PatchTable::patch`] and [`PatchTable::forget`] no other processor executes what is in `code` or in the stub area.
    #[allow(unsafe_code, reason = "the caller vouches for the memory")]
    pub unsafe fn new(
        stub_area: *mut u8,
        len: usize,
        code: Range<u64>,
        kernel_syscall_entry: u64,
    ) -> Result<PatchTable, TableError> {
        let begin = stub_area as u64;
        let stubs = begin..begin.saturating_add(len as u64);
        // SAFETY: the contract of this function includes that of `Mapped::new`, for the two ranges that `CodeMemory` asks it for.
        let access = unsafe { Mapped::new() };
        PatchTable::with_access(stubs, code, kernel_syscall_entry, Box::new(access))
    }

    /// The same for memory that `access` reads and writes, which may fail at any time.
    ///
    /// During [`PatchTable::patch`] and [`PatchTable::forget`] no other processor may execute what is in `code` or in `stubs`.
    ///
    /// # Errors
    ///
    /// [`TableError`].
    pub fn with_access(
        stubs: Range<u64>,
        code: Range<u64>,
        kernel_syscall_entry: u64,
        access: Box<dyn CodeAccess>,
    ) -> Result<PatchTable, TableError> {
        let len = stubs.end.saturating_sub(stubs.start);
        if len < LEAST_AREA || stubs.start == 0 || stubs.end == u64::MAX {
            return Err(TableError::StubArea {
                begin: stubs.start,
                len,
                least: LEAST_AREA,
            });
        }
        let overlap = code.start < stubs.end && stubs.start < code.end;
        if code.start > code.end || overlap {
            return Err(TableError::CodeRange {
                begin: code.start,
                end: code.end,
            });
        }
        Ok(PatchTable {
            memory: CodeMemory::new(code, stubs.clone(), access),
            kernel: kernel_syscall_entry,
            landings: Landings::default(),
            landed: AtomicU64::new(0),
            state: Mutex::new(State {
                area: StubArea::new(stubs),
                next_id: 0,
                patches: BTreeMap::new(),
                spans: BTreeSet::new(),
                displaced: BTreeMap::new(),
                stubs: BTreeMap::new(),
                in_place: HashMap::new(),
                refused: BTreeMap::new(),
                stats: Stats::default(),
            }),
        })
    }

    /// Whether patches of this table are at `address`, in programs or as stubs.
    pub fn concerns(&self, address: u64) -> bool {
        self.memory.contains(address, 0)
    }

    /// Patches the system call instruction which ends at `ip_after_syscall`, and which a program just executed.
    ///
    /// A system call that is patched already is patched a second time when it keeps trapping. Afterwards a task may still be
    /// about to go on at `ip_after_syscall`, or at any other address of the program: see [`PatchTable::on_invalid_opcode`].
    pub fn patch(&self, ip_after_syscall: u64) -> Result<PatchKind, PatchError> {
        let ip = ip_after_syscall;
        let len = SYSCALL.len() as u64;
        let site = ip
            .checked_sub(len)
            .filter(|&site| self.memory.code().contains(&site))
            .ok_or(PatchError::OutOfRange { ip })?;
        if !self.memory.holds(site, &SYSCALL) {
            return Err(PatchError::NotSyscall { ip });
        }
        let mut state = self.lock();
        let mut around = [0; 16];
        let fingerprint = self
            .memory
            .read(site.saturating_sub(6), &mut around)
            .then_some(around);
        if let Some((why, bytes)) = state.refused.get(&site)
            && Some(*bytes) == fingerprint
        {
            return Err(*why);
        }
        let result = self.patch_site(&mut state, site);
        match result {
            Ok(_) => {
                state.refused.remove(&site);
            }
            Err(why) => {
                match why {
                    PatchError::NoPattern { .. } => state.stats.no_pattern += 1,
                    PatchError::AreaFull { .. } => state.stats.no_room += 1,
                    _ => {}
                }
                if state.refused.len() >= MOST_REFUSALS {
                    state.refused.clear();
                }
                if let Some(bytes) = fingerprint
                    && !matches!(why, PatchError::Absent { .. })
                {
                    state.refused.insert(site, (why, bytes));
                }
            }
        }
        result
    }

    fn patch_site(&self, state: &mut State, site: u64) -> Result<PatchKind, PatchError> {
        let wide = Surroundings::range(site, plan::WIDE, self.memory.code());
        if let Some(kind) = self.apply_again(state, site) {
            return Ok(kind);
        }
        self.drop_overwritten(state, &wide);

        let existing = state.in_place.get(&site).copied();
        if let Some(patch) = existing.and_then(|id| state.patches.get_mut(&id)) {
            patch.traps = patch.traps.saturating_add(1);
            let (traps, kind) = (patch.traps, patch.kind);
            state.stats.traps_after_patch += 1;
            if traps != TRAPS_TOLERATED {
                return Ok(kind);
            }
        }

        let ip = site.wrapping_add(SYSCALL.len() as u64);
        let mut why = PatchError::NoPattern { ip };
        let stages: [(u64, Planner); 3] = [
            (plan::NEAR, plan::preceding),
            (plan::WIDE, plan::caves),
            (plan::WIDE, plan::around),
        ];
        // What is in place already need not be found again.
        for (radius, plans) in stages.iter().skip(usize::from(existing.is_some())) {
            let code = self
                .surroundings(state, site, *radius)
                .ok_or(PatchError::OutOfRange { ip })?;
            if code.is_signal_return() {
                return Err(PatchError::SignalReturn { ip });
            }
            for plan in plans(&code) {
                // A second patch has to concern the system call itself.
                let helps =
                    existing.is_none() || plan.displaces_syscall() || plan.kind == PatchKind::Cave;
                if !helps || state.conflict(&plan) {
                    continue;
                }
                match self.carry_out(state, &plan) {
                    Ok(()) => {
                        if let Some(first) = existing.filter(|_| plan.displaces_syscall()) {
                            // Its stub returns to where now the inside of a jump is.
                            self.retire(state, first, &(0..0));
                        }
                        return Ok(plan.kind);
                    }
                    Err(NoPlace::Full) => why = PatchError::AreaFull { ip },
                    Err(NoPlace::Unsuitable) => {}
                    Err(NoPlace::Absent) => return Err(PatchError::Absent { ip }),
                }
            }
        }
        match existing.and_then(|id| state.patches.get(&id)) {
            Some(patch) => Ok(patch.kind),
            None => Err(why),
        }
    }

    /// Writes stub and jump.
    fn carry_out(&self, state: &mut State, plan: &Plan) -> Result<(), NoPlace> {
        if state.patches.len() >= MOST_PATCHES {
            return Err(NoPlace::Full);
        }
        let len = stub::longest(plan);
        let place = state
            .area
            .take(len, plan.jump_at.wrapping_add(JUMP), plan.guarded())?;
        let written = self.write(state, plan, place.clone());
        if written.is_err() {
            state.area.give_back(&place);
        }
        written
    }

    /// Writes stub and jump to `place`; an error, with the program unchanged, when that cannot be done.
    fn write(&self, state: &mut State, plan: &Plan, place: Range<u64>) -> Result<(), NoPlace> {
        let prepared = self.prepare(plan, place.start).ok_or(NoPlace::Unsuitable)?;
        let Prepared {
            stub,
            jump,
            edits,
            span,
        } = prepared;
        let displaced = plan.displaced();
        if !self.memory.write(place.start, &stub.code) {
            return Err(NoPlace::Absent);
        }

        let inner: BTreeSet<u64> = plan.inner().collect();
        for (address, target) in &stub.to_patched {
            let landing = Landing {
                target: *target,
                jump_at: plan.jump_at,
                jump,
            };
            if inner.contains(address) && !self.landings.insert(*address, &landing) {
                self.remove_landings(&stub.to_patched);
                return Err(NoPlace::Unsuitable);
            }
        }
        for (done, edit) in edits.iter().enumerate() {
            if !self.memory.write(edit.at, edit.new_bytes()) {
                for written in edits.iter().take(done) {
                    written.undo(&self.memory, &(0..0));
                }
                self.remove_landings(&stub.to_patched);
                return Err(NoPlace::Absent);
            }
        }

        let id = state.next_id;
        state.next_id += 1;
        for range in &displaced {
            state.displaced.insert(range.start, (range.end, id));
        }
        state.spans.insert((span.start, id));
        state.stubs.insert(place.start, id);
        if plan.kind != PatchKind::Cave && !plan.displaces_syscall() {
            state.in_place.insert(plan.site, id);
        }
        state.stats.live += 1;
        *state.stats.made(plan.kind) += 1;
        let patch = Patch {
            kind: plan.kind,
            site: plan.site,
            edits,
            displaced,
            span,
            place,
            to_program: stub.to_program,
            to_patched: stub.to_patched,
            traps: 0,
        };
        state.patches.insert(id, patch);
        Ok(())
    }

    /// What is to be written for a stub at `begin`; `None` when that place does not do.
    fn prepare(&self, plan: &Plan, begin: u64) -> Option<Prepared> {
        let stub = stub::assemble(plan, begin, self.kernel)?;
        let jump = stub::jump(plan.jump_at, begin)?;
        let mut edits = vec![self.edit(plan.jump_at, &jump)?];
        let mut span = plan.jump_at.min(plan.site)..plan.end.max(plan.after());
        if plan.kind == PatchKind::Cave {
            let to_cave = i8::try_from(displacement(plan.after(), plan.jump_at)?).ok()?;
            edits.push(self.edit(plan.site, &[0xeb, to_cave as u8])?);
        }
        if let Some(last) = plan.tail.last() {
            span.end = span.end.max(last.end());
        }
        Some(Prepared {
            stub,
            jump,
            edits,
            span,
        })
    }

    /// An edit of the bytes at `at`, which are read but not written yet.
    fn edit(&self, at: u64, bytes: &[u8]) -> Option<Edit> {
        let len = bytes.len();
        let mut edit = Edit {
            at,
            len,
            old: [0; 5],
            new: [0; 5],
        };
        edit.new.get_mut(..len)?.copy_from_slice(bytes);
        let old = edit.old.get_mut(..len)?;
        (self.memory.code().contains(&at) && self.memory.read(at, old)).then_some(edit)
    }

    /// Translates a program counter; one which no patch concerns comes back unchanged.
    pub fn translate(&self, ip: u64, direction: Direction) -> u64 {
        if direction == Direction::Refused {
            return self.on_invalid_opcode(ip).unwrap_or(ip);
        }
        let state = self.lock();
        let found = match direction {
            Direction::ToProgram => state.to_program(ip),
            Direction::ToPatched => state.to_patched(ip, &self.memory),
            Direction::Refused => None,
        };
        found.unwrap_or(ip)
    }

    /// Where to resume when the processor refused the instruction at `ip`, if it is one which a patch put there.
    ///
    /// Takes no lock, allocates nothing and uses no thread-local storage: it can be called from a signal handler.
    pub fn on_invalid_opcode(&self, ip: u64) -> Option<u64> {
        let landing = self.landings.get(ip)?;
        if !self.memory.holds(landing.jump_at, &landing.jump) {
            return None;
        }
        self.landed.fetch_add(1, Ordering::Relaxed);
        Some(landing.target)
    }

    /// Forgets the patches in `begin..end`, which hold no code from now on. Nothing is written there; what a patch
    /// changed outside is put back.
    pub fn forget(&self, begin: u64, end: u64) {
        let mut state = self.lock();
        let gone = begin..end;
        let used = state.area.used_bytes();
        for id in state.spanning(&gone) {
            let Some(patch) = state.patches.get(&id) else {
                continue;
            };
            let live = !patch.edits.is_empty();
            let span = patch.span.clone();
            if gone.start <= span.start && span.end <= gone.end {
                self.remove(&mut state, id);
            } else {
                // Tasks may still return from its stub to what is left.
                self.retire(&mut state, id, &gone);
                state.shrink(id, &gone);
            }
            state.stats.forgotten += u64::from(live);
        }
        if !gone.is_empty() {
            state.refused.retain(|site, _| !gone.contains(site));
        }
        if state.area.used_bytes() < used {
            let full = |why: &PatchError| matches!(why, PatchError::AreaFull { .. });
            state.refused.retain(|_, (why, _)| !full(why));
        }
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        let state = self.lock();
        Stats {
            landings: self.landed.load(Ordering::Relaxed),
            stub_bytes: state.area.used_bytes(),
            ..state.stats
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is only inconsistent while a method of it runs, and none of them panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The original code up to `radius` bytes from `site`.
    fn surroundings(&self, state: &State, site: u64, radius: u64) -> Option<Surroundings> {
        let mut range = Surroundings::range(site, radius, self.memory.code());
        let mut bytes = vec![0; range.end.saturating_sub(range.start) as usize];
        if !self.memory.read(range.start, &mut bytes) {
            // The next page may be absent, or no code's.
            let page = site / PAGE * PAGE;
            range = range.start.max(page)..range.end.min(page + PAGE);
            bytes.truncate(range.end.saturating_sub(range.start) as usize);
            if !self.memory.read(range.start, &mut bytes) {
                return None;
            }
        }
        self.undo_in_copy(state, &range, &mut bytes);
        Some(Surroundings {
            site,
            begin: range.start,
            bytes,
        })
    }

    /// Puts the original bytes back into `bytes`, a copy of `range`.
    fn undo_in_copy(&self, state: &State, range: &Range<u64>, bytes: &mut [u8]) {
        for id in state.spanning(range) {
            let Some(patch) = state.patches.get(&id) else {
                continue;
            };
            for edit in &patch.edits {
                for (at, byte) in edit.range().zip(edit.old()) {
                    let offset = at.checked_sub(range.start).map(|offset| offset as usize);
                    if let Some(to) = offset.and_then(|offset| bytes.get_mut(offset)) {
                        *to = *byte;
                    }
                }
            }
        }
    }

    /// Writes the jump of a patch of this site once more where the program is as it was before: another program that is seen at the same
    /// addresses may have the same code, of which only one copy was patched. `None` when that is not so.
    fn apply_again(&self, state: &mut State, site: u64) -> Option<PatchKind> {
        let range = site..site + SYSCALL.len() as u64;
        let id = state.spanning(&range).into_iter().find(|id| {
            state.patches.get(id).is_some_and(|patch| {
                patch.site == site
                    && !patch.edits.is_empty()
                    && patch.edits.iter().all(|edit| edit.is_undone(&self.memory))
            })
        })?;
        let patch = state.patches.get(&id)?;
        for (done, edit) in patch.edits.iter().enumerate() {
            if !self.memory.write(edit.at, edit.new_bytes()) {
                for written in patch.edits.iter().take(done) {
                    written.undo(&self.memory, &(0..0));
                }
                return None;
            }
        }
        let kind = patch.kind;
        state.stats.applied_again += 1;
        Some(kind)
    }

    /// Ends patches in `range` whose bytes are not in memory any more.
    fn drop_overwritten(&self, state: &mut State, range: &Range<u64>) {
        for id in state.spanning(range) {
            let stale = state
                .patches
                .get(&id)
                .is_some_and(|patch| !patch.edits.iter().all(|edit| edit.intact(&self.memory)));
            if stale {
                // Nothing is put back, and tasks may still be in its stub.
                self.retire(state, id, &(0..u64::MAX));
                state.stats.overwritten += 1;
            }
        }
    }

    fn remove_landings(&self, to_patched: &[(u64, u64)]) {
        for (address, _) in to_patched {
            self.landings.remove(*address);
        }
    }

    /// Takes a live patch out of the program, except out of the range `gone`, but keeps its stub.
    fn retire(&self, state: &mut State, id: u64, gone: &Range<u64>) {
        let Some(patch) = state.patches.get_mut(&id) else {
            return;
        };
        if patch.edits.is_empty() {
            return;
        }
        for edit in core::mem::take(&mut patch.edits) {
            edit.undo(&self.memory, gone);
        }
        let to_patched = core::mem::take(&mut patch.to_patched);
        self.remove_landings(&to_patched);
        let site = patch.site;
        for range in core::mem::take(&mut patch.displaced) {
            state.displaced.remove(&range.start);
        }
        if state.in_place.get(&site) == Some(&id) {
            state.in_place.remove(&site);
        }
        state.stats.live = state.stats.live.saturating_sub(1);
    }

    /// Ends a patch, without writing to the program.
    fn remove(&self, state: &mut State, id: u64) {
        let Some(patch) = state.patches.remove(&id) else {
            return;
        };
        self.remove_landings(&patch.to_patched);
        for range in &patch.displaced {
            state.displaced.remove(&range.start);
        }
        if state.in_place.get(&patch.site) == Some(&id) {
            state.in_place.remove(&patch.site);
        }
        state.spans.remove(&(patch.span.start, id));
        state.stubs.remove(&patch.place.start);
        state.area.give_back(&patch.place);
        if !patch.edits.is_empty() {
            state.stats.live = state.stats.live.saturating_sub(1);
        }
    }
}

impl State {
    /// The patches, live and retired, that concern bytes in `range`.
    fn spanning(&self, range: &Range<u64>) -> Vec<u64> {
        if range.is_empty() {
            return Vec::new();
        }
        let first = range.start.saturating_sub(LONGEST_SPAN);
        self.spans
            .range((first, 0)..(range.end, 0))
            .map(|(_, id)| *id)
            .filter(|id| {
                self.patches
                    .get(id)
                    .is_some_and(|patch| patch.span.end > range.start)
            })
            .collect()
    }

    /// Reduces the span of a patch to what is outside `gone`, which covers one of its ends or a part in the middle.
    fn shrink(&mut self, id: u64, gone: &Range<u64>) {
        let Some(patch) = self.patches.get_mut(&id) else {
            return;
        };
        self.spans.remove(&(patch.span.start, id));
        if gone.start <= patch.span.start {
            patch.span.start = gone.end;
        } else if patch.span.end <= gone.end {
            patch.span.end = gone.start;
        }
        self.spans.insert((patch.span.start, id));
    }

    /// Whether what `plan` displaces is displaced already.
    fn conflict(&self, plan: &Plan) -> bool {
        plan.displaced().iter().any(|range| {
            self.displaced
                .range(..range.end)
                .next_back()
                .is_some_and(|(_, (end, _))| *end > range.start)
        })
    }

    fn to_program(&self, ip: u64) -> Option<u64> {
        if let Some((_, id)) = self.stubs.range(..=ip).next_back() {
            let patch = self.patches.get(id)?;
            if patch.place.contains(&ip) {
                let after = patch.to_program.partition_point(|(stub, _)| *stub <= ip);
                let (_, program) = patch.to_program.get(after.checked_sub(1)?)?;
                return Some(*program);
            }
        }
        let (_, (_, id)) = self.displaced.range(..=ip).next_back()?;
        let patch = self.patches.get(id)?;
        let cave = patch.edits.first()?;
        (patch.kind == PatchKind::Cave && cave.range().contains(&ip)).then_some(patch.site)
    }

    fn to_patched(&self, ip: u64, memory: &CodeMemory) -> Option<u64> {
        let (_, (_, id)) = self.displaced.range(..=ip).next_back()?;
        let patch = self.patches.get(id)?;
        let (_, stub) = patch
            .to_patched
            .iter()
            .find(|(program, _)| *program == ip)?;
        patch
            .edits
            .iter()
            .all(|edit| edit.intact(memory))
            .then_some(*stub)
    }
}

impl Stats {
    fn made(&mut self, kind: PatchKind) -> &mut u64 {
        match kind {
            PatchKind::Preceding => &mut self.preceding,
            PatchKind::Cave => &mut self.cave,
            PatchKind::Following => &mut self.following,
            PatchKind::Several => &mut self.several,
        }
    }
}
