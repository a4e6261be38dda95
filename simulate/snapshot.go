package simulate

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
)

// Snapshot is a run after one of its rounds: what RunConfig.Start goes on from, to the model that a run without a break has. Parts of
// one's own must be those of the run that was cut. One of fidelity system has the result alone: all else lies with its
// coordinators and nodes, in RunConfig.Dir.
type Snapshot struct {
	Round  int
	Result Result // of the rounds so far

	identity string              // of the experiment and its seed
	global   []float32           // the model after Round
	state    [][]float32         // of the server
	memories map[int][][]float32 // of the nodes that have one, by place
	aloft    *aloft              // of an asynchronous strategy; nil: there are rounds
}

// ErrTorn is a snapshot that is not whole, or was altered.
var ErrTorn = errors.New("the snapshot is torn or altered")

// snapshotMagic begins a snapshot's bytes, and says in which form they are.
const snapshotMagic = "choir snapshot 1\n"

// snapshotHeader is the part of a snapshot that is JSON: its vectors follow, little-endian, then SHA-256 over all of it.
type snapshotHeader struct {
	Round      int    `json:"round"`
	Identity   string `json:"identity"`
	Result     Result `json:"result"`
	Parameters int    `json:"parameters"` // length of each vector
	State      int    `json:"state"`      // vectors of the server
	Memory     int    `json:"memory"`     // vectors of a node
	Nodes      []int  `json:"nodes"`      // that have a memory, in order
	Aloft      *aloft `json:"aloft,omitempty"`
}

// WriteTo writes all of the snapshot.
func (s *Snapshot) WriteTo(w io.Writer) (int64, error) {
	h := snapshotHeader{
		Round: s.Round, Identity: s.identity, Result: s.Result, Parameters: len(s.global), State: len(s.state),
		Nodes: slices.Sorted(maps.Keys(s.memories)), Aloft: s.aloft,
	}
	vectors := append([][]float32{s.global}, s.state...)
	for _, node := range h.Nodes {
		h.Memory = len(s.memories[node])
		vectors = append(vectors, s.memories[node]...)
	}
	if s.aloft != nil {
		vectors = append(vectors, s.aloft.models...)
	}
	head, err := json.Marshal(h)
	if err != nil {
		return 0, fmt.Errorf("write snapshot: %w", err)
	}
	sum := sha256.New()
	both, written := io.MultiWriter(w, sum), int64(0)
	put := func(w io.Writer, b []byte) {
		if err == nil {
			_, err = w.Write(b)
			written += int64(len(b))
		}
	}
	put(both, []byte(snapshotMagic))
	put(both, binary.LittleEndian.AppendUint32(nil, uint32(len(head))))
	put(both, head)
	var buf []byte
	for _, v := range vectors {
		buf = buf[:0]
		for _, x := range v {
			buf = binary.LittleEndian.AppendUint32(buf, math.Float32bits(x))
		}
		put(both, buf)
	}
	put(w, sum.Sum(nil))
	if err != nil {
		return written, fmt.Errorf("write snapshot: %w", err)
	}
	return written, nil
}

// ReadSnapshot reads what WriteTo wrote. Its error is ErrTorn for whatever else.
func ReadSnapshot(r io.Reader) (*Snapshot, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	body, ok := bytes.CutPrefix(b, []byte(snapshotMagic))
	if !ok || len(body) < 4+sha256.Size {
		return nil, ErrTorn
	}
	body = body[:len(body)-sha256.Size]
	if sum := sha256.Sum256(b[:len(b)-sha256.Size]); !bytes.Equal(sum[:], b[len(b)-sha256.Size:]) {
		return nil, ErrTorn
	}
	size := int64(binary.LittleEndian.Uint32(body))
	if body = body[4:]; size > int64(len(body)) {
		return nil, ErrTorn
	}
	var h snapshotHeader
	if err := json.Unmarshal(body[:size], &h); err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	return h.snapshot(body[size:])
}

// snapshot takes the vectors that the header speaks of.
func (h *snapshotHeader) snapshot(b []byte) (*Snapshot, error) {
	n, held, models := h.Parameters, len(b)/4, 0
	if h.Aloft != nil {
		models = len(h.Aloft.Models)
	}
	switch {
	case n == 0 && len(b) == 0 && h.State == 0 && len(h.Nodes) == 0 && h.Aloft == nil: // of fidelity system
		return &Snapshot{Round: h.Round, Result: h.Result, identity: h.Identity}, nil
	case n < 1 || len(b)%4 != 0 || held%n != 0 || h.State < 0 || h.State > held || h.Memory < 0:
		return nil, ErrTorn
	case h.Memory > 0 && len(h.Nodes) > held/h.Memory: // their product might not fit an int
		return nil, ErrTorn
	case 1+h.State+h.Memory*len(h.Nodes)+models != held/n:
		return nil, ErrTorn
	}
	take := func(count int) [][]float32 {
		vs := make([][]float32, count)
		for i := range vs {
			vs[i] = make([]float32, n)
			for k := range vs[i] {
				vs[i][k] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*k:]))
			}
			b = b[4*n:]
		}
		return vs
	}
	s := &Snapshot{Round: h.Round, Result: h.Result, identity: h.Identity, memories: map[int][][]float32{}}
	s.global, s.state = take(1)[0], take(h.State)
	for _, node := range h.Nodes {
		s.memories[node] = take(h.Memory)
	}
	if s.aloft = h.Aloft; s.aloft != nil {
		s.aloft.models = take(models)
	}
	return s, nil
}

// identity tells runs apart: a snapshot is of one of them alone.
func (t *trial) identity() (string, error) {
	b, err := json.Marshal(struct {
		Experiment *Experiment
		Seed       uint64
	}{t.x, t.cfg.Seed})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// behind is the round after which the run goes on, 0 for one that begins.
func (t *trial) behind() int {
	if t.cfg.Start == nil {
		return 0
	}
	return t.cfg.Start.Round
}

// restore takes over what a run has found until its snapshot, if it goes on from one.
func (t *trial) restore() error {
	s := t.cfg.Start
	if s == nil {
		return nil
	}
	identity, err := t.identity()
	switch {
	case err != nil:
		return err
	case identity != s.identity:
		return errors.New("the snapshot is of another experiment, or of another seed")
	case s.Result.Fidelity != t.result.Fidelity:
		return fmt.Errorf("the snapshot is of fidelity %s, want %s", s.Result.Fidelity, t.result.Fidelity)
	case s.Round < 1 || s.Round > t.rounds:
		return errMisfit
	}
	report := t.result.Report
	*t.result = s.Result
	t.result.Report = report
	return nil
}

// errMisfit is of a snapshot that says other things than its experiment.
var errMisfit = errors.New("the snapshot does not fit its experiment: it is of another version of choir")

// restore puts the engine where a snapshot was taken.
func (e *engine) restore(s *Snapshot) error {
	if err := e.trial.restore(); err != nil {
		return err
	}
	if len(s.global) != len(e.global) || len(s.state) != len(e.state) {
		return errMisfit
	}
	e.global, e.state, e.memories.byNode = s.global, s.state, s.memories
	return nil
}

// keep hands out where the engine stands after a round that is not the last; who is under way then is nil if nobody is.
func (e *engine) keep(round int, underWay *aloft) error {
	return e.trial.keep(&Snapshot{Round: round, global: e.global, state: e.state, memories: e.memories.byNode, aloft: underWay})
}

// keep completes a snapshot of a round, and hands it out unless that is the last.
func (t *trial) keep(s *Snapshot) (err error) {
	if t.cfg.Keep == nil || s.Round == t.rounds {
		return nil
	}
	if s.identity, err = t.identity(); err != nil {
		return err
	}
	s.Result = *t.timed()
	if err := t.cfg.Keep(s); err != nil {
		return fmt.Errorf("keep round %d: %w", s.Round, err)
	}
	return nil
}
