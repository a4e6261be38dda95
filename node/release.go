package node

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"choir.example/internal/blob"
	"choir.example/model"
	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"
)

// Each model that the node serves is kept in a file, release-NAME.choir with the name in hexadecimal digits: the version
// in eight bytes, the blob's id, the model file. It is public to the federation and not sealed.
const (
	releasePrefix = "release-"
	releaseSuffix = ".choir"
)

func (n *Node) releasePath(model string) string {
	return filepath.Join(n.cfg.Dir, releasePrefix+hex.EncodeToString([]byte(model))+releaseSuffix)
}

// held is the version of each model that the node has.
func (n *Node) held() map[string]uint64 {
	if n.serve == nil {
		return map[string]uint64{}
	}
	out := n.serve.skipped()
	for name, m := range n.serve.models() {
		out[name] = max(out[name], m.version)
	}
	return out
}

// follow fetches newer releases and serves each from then on. It reports whether one was settled: taken, or known to be
// none for this node, which is not asked for again. A node without a prediction server follows none.
func (n *Node) follow(ctx context.Context, refs []*choirv1.ReleaseRef) (settled bool) {
	if n.serve == nil {
		return false
	}
	for _, ref := range refs {
		err := n.adopt(ctx, ref)
		if ctx.Err() != nil {
			return false
		}
		if err != nil {
			n.metrics.refused.Inc()
			n.complain(ref, "release not taken; the one before stays", "error", err)
		}
		if isFinal(err) {
			n.serve.skip(ref.Model, ref.Version)
		}
		settled = settled || err == nil || isFinal(err)
	}
	return settled
}

// maxComplaints is how many complaints about releases are remembered.
const maxComplaints = 64

// complain warns once of what is wrong with a release, however often it is asked for.
func (n *Node) complain(ref *choirv1.ReleaseRef, message string, args ...any) {
	level, key := slog.LevelWarn, fmt.Sprint(ref.Model, ref.Version, message, args)
	if n.complaints[key] {
		level = slog.LevelDebug
	}
	if len(n.complaints) >= maxComplaints || n.complaints == nil {
		n.complaints = map[string]bool{}
	}
	n.complaints[key] = true
	n.deps.Log.Log(context.Background(), level, message, append([]any{"model", ref.Model, "version", ref.Version}, args...)...)
}

// adopt takes one release, as the coordinators have recorded it. Its error is final if trying again cannot help.
func (n *Node) adopt(ctx context.Context, ref *choirv1.ReleaseRef) error {
	if m := n.serve.models()[ref.Model]; m != nil && ref.Version <= m.version {
		return fmt.Errorf("version %d is in use, a coordinator offers an older one", m.version)
	}
	var rel *audit.Released
	err := n.client.release(ctx, ref, func(answer *choirv1.Release, address string) (err error) {
		if rel, err = n.id.committed(answer.Proof, ref, n.deps.Now()); err != nil {
			n.complain(ref, "a coordinator did not prove that the release was committed", "address", address, "error", err)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, v := range rel.Variants {
		if v.Name != n.cfg.Variant {
			continue
		}
		if !v.Published {
			return &finalError{fmt.Errorf("variant %s was withheld: %s", v.Name, v.Reason)}
		}
		body, err := n.client.fetch(ctx, v.Blob[:])
		if err != nil {
			return err
		}
		return n.install(ref, body)
	}
	return &finalError{fmt.Errorf("the release has no variant %s", n.cfg.Variant)}
}

// committed returns the record of a release, if a proof shows that it stands in the log that a majority of the coordinators
// signed, of those in the roster that this node holds. One coordinator alone cannot make such a proof.
func (id *identity) committed(proof []byte, ref *choirv1.ReleaseRef, now time.Time) (*audit.Released, error) {
	if len(proof) == 0 {
		return nil, errors.New("there is no proof that the release was committed")
	}
	p, err := audit.DecodeProof(proof)
	if err != nil {
		return nil, err
	}
	roster, ok := id.roster.latest()
	if !ok {
		return nil, errors.New("no roster of the coordinators came yet to verify the release against")
	}
	record, err := p.Verify(roster, id.trusted(), now)
	if err != nil {
		return nil, fmt.Errorf("the release is not proved: %w", clockError(err, now))
	}
	rel, ok := record.(*audit.Released)
	if !ok || rel.Model != ref.Model || rel.Version != ref.Version {
		return nil, fmt.Errorf("what is proved is another record: %s", record.Kind())
	}
	return rel, nil
}

// install keeps a model file that was verified against its id, and swaps it in.
func (n *Node) install(ref *choirv1.ReleaseRef, body []byte) error {
	m, err := model.Decode(body)
	if err != nil {
		return &finalError{err}
	}
	if m.Name != ref.Model || m.Variant != n.cfg.Variant {
		return &finalError{fmt.Errorf("the file holds variant %s of model %q", m.Variant, m.Name)}
	}
	if err := n.serve.selfTest(m); err != nil {
		return &finalError{fmt.Errorf("its self-test: %w", err)}
	}
	id := blob.ID(body)
	file := append(append(binary.BigEndian.AppendUint64(nil, ref.Version), id[:]...), body...)
	if err := seal.WriteFile(n.releasePath(m.Name), file); err != nil {
		return err
	}
	n.serve.swap(m, ref.Version, id)
	if f := n.deps.Observe.Released; f != nil {
		f(m.Name, ref.Version, m.Variant)
	}
	return nil
}

// loadReleases serves the releases kept from before a restart, each if it verifies and is of the variant that is
// configured now. Others are fetched again.
func (n *Node) loadReleases() {
	if n.serve == nil {
		return
	}
	entries, err := os.ReadDir(n.cfg.Dir)
	if err != nil {
		n.deps.Log.Warn("kept releases not found", "error", err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), releasePrefix) || !strings.HasSuffix(e.Name(), releaseSuffix) {
			continue
		}
		if err := n.loadRelease(filepath.Join(n.cfg.Dir, e.Name())); err != nil {
			n.deps.Log.Warn("kept release not served; it is fetched again", "file", e.Name(), "error", err)
		}
	}
}

func (n *Node) loadRelease(path string) error {
	file, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if len(file) < 40 || blob.ID(file[40:]) != [32]byte(file[8:40]) {
		return errors.New("it is damaged")
	}
	m, err := model.Decode(file[40:])
	if err != nil {
		return err
	}
	if m.Variant != n.cfg.Variant || path != n.releasePath(m.Name) {
		return fmt.Errorf("it holds variant %s of model %q", m.Variant, m.Name)
	}
	if err := n.serve.selfTest(m); err != nil {
		return fmt.Errorf("its self-test: %w", err)
	}
	n.serve.swap(m, binary.BigEndian.Uint64(file), [32]byte(file[8:40]))
	return nil
}

// selfTestRows is how many synthetic rows a release has to answer before it is served.
const selfTestRows = 256

// selfTest sees that a release can take the place of the one before: it is for the same schema, and answers synthetic
// rows with numbers.
func (s *server) selfTest(m *model.Model) error {
	if old, ok := s.models()[m.Name]; ok && old.model.Schema.Digest() != m.Schema.Digest() {
		return fmt.Errorf("it is for another schema than version %d, which is in use", old.version)
	}
	logits := make([]float32, selfTestRows)
	m.Predictor().Predict(m.Statistics.Synthetic(selfTestRows, 1), logits)
	if !model.Finite(logits) {
		return errors.New("it answers synthetic rows with what is no number")
	}
	return nil
}
