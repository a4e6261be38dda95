package state_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"choir.example/coordinator/state"
	choirv1 "choir.example/proto/choir/v1"
)

// snap is the state's snapshot: what two states are compared by.
func snap(t testing.TB, s *state.State) string {
	t.Helper()
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func restore(t testing.TB, snapshot string) *state.State {
	t.Helper()
	s, err := state.Decode([]byte(snapshot))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (e entry) apply(s *state.State) (*state.State, error) {
	return state.Apply(s, e.index, e.term, e.data)
}

func (tr transcript) entries(t testing.TB) (es []entry) {
	t.Helper()
	tr.play(t, func(_ string, e entry) []string {
		es = append(es, e)
		return nil
	})
	return es
}

// history is every state of a transcript: before its first entry, and after each.
func history(t testing.TB, es []entry) (states []*state.State) {
	t.Helper()
	states = []*state.State{state.New()}
	for i, e := range es {
		s, _ := e.apply(states[i])
		states = append(states, s)
	}
	return states
}

func text(err error) string {
	if err != nil {
		return err.Error()
	}
	return "ok"
}

func TestApplyChangesNeitherItsStateNorItsCommand(t *testing.T) {
	for _, tr := range transcripts(t) {
		s := state.New()
		var states []*state.State
		var snaps []string
		for _, e := range tr.entries(t) {
			states, snaps = append(states, s), append(snaps, snap(t, s))
			data := bytes.Clone(e.data)
			next, _ := e.apply(s)
			if !bytes.Equal(e.data, data) {
				t.Fatalf("%s: entry %d: the command changed", tr.name, e.index)
			}
			want := snap(t, next)
			clear(e.data) // raft may use the memory again
			if snap(t, next) != want {
				t.Fatalf("%s: entry %d: the state shares memory with the command", tr.name, e.index)
			}
			s = next
		}
		for i, old := range states {
			if snap(t, old) != snaps[i] {
				t.Errorf("%s: the state before entry %d was changed later", tr.name, i+1)
			}
		}
	}
}

func TestTheSameLogGivesTheSameBytes(t *testing.T) {
	for _, tr := range transcripts(t) {
		es := tr.entries(t)
		a, b := history(t, es), history(t, es)
		for i := range a {
			if snap(t, a[i]) != snap(t, b[i]) {
				t.Fatalf("%s: two replays differ after entry %d", tr.name, i)
			}
		}
	}
}

// A replica may be restored from a snapshot at any point, and go on from there.
func TestARestoredStateGoesOnLikeTheLiveOne(t *testing.T) {
	for _, tr := range transcripts(t) {
		es := tr.entries(t)
		live := history(t, es)
		var snaps, texts []string // of the live states, and what applying the next entry to them gives
		for i, s := range live {
			snaps = append(snaps, snap(t, s))
			if i < len(es) {
				_, got := es[i].apply(s)
				texts = append(texts, text(got))
			}
		}
		for i := range live {
			s := restore(t, snaps[i])
			for k := i; ; k++ {
				if snap(t, s) != snaps[k] {
					t.Fatalf("%s: restored after entry %d, the state after entry %d differs", tr.name, i, k)
				}
				if k == len(es) {
					break
				}
				next, got := es[k].apply(s)
				if text(got) != texts[k] {
					t.Fatalf("%s: restored after entry %d, entry %d gives %q, want %q", tr.name, i, k+1, text(got), texts[k])
				}
				s = next
			}
		}
	}
}

// A reader may keep a state while the log goes on, and a state may have several futures: none shares memory that
// another writes.
func TestTwoFuturesOfOneStateAreApart(t *testing.T) {
	w := newWorld(t, 16)
	w.tell(`submit_job { spec { name: "purchase" model: "buyer" rounds: 3 minimum_cohort: 1 hidden: 8 } time_ms: 1 }`)
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	key := w.job().Active().Key("purchase")
	accept := func(i int) *choirv1.Command {
		name := fmt.Sprintf("node-%05d", i)
		return &choirv1.Command{Body: &choirv1.Command_AcceptBatch{AcceptBatch: &choirv1.AcceptBatch{
			Key: key, Batch: digestOf("b" + name), Sum: digestOf("s" + name), Coordinator: "ada", Holders: []string{"ada"}, Weight: 1,
			Accepted: []*choirv1.Accepted{{Node: name, Update: digestOf("u" + name), Weight: 1}},
		}}}
	}
	for i := range 14 {
		s := w.s
		w.do(accept(15))
		other, want := w.s, snap(t, w.s)
		w.s = s
		w.do(accept(i))
		if snap(t, other) != want {
			t.Fatalf("after %d batches, one future changed the other", i)
		}
	}
}

// Apply decides and signs nothing: its code names no private key, and of the packages that hold them only what reads
// certificates.
func TestApplySignsNothing(t *testing.T) {
	allowed := map[string][]string{
		"seal":    {"ErrRevoked", "Fingerprint", "RoleCoordinator", "RoleNode"},
		"ed25519": {"PublicKey", "PublicKeySize"},
		"x509":    {"ParseCertificate"},
	}
	forbidden := []string{"Sign", "Certify", "CertifyNode", "CertifyIssuer", "CreateCertificate", "NewKey", "NewKeyFromSeed", "GenerateKey", "PrivateKey"}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range file.Imports {
			if path, err := strconv.Unquote(i.Path.Value); err != nil || strings.HasPrefix(path, "crypto/") && !slices.Contains([]string{"crypto/ed25519", "crypto/sha256", "crypto/x509"}, path) || i.Name != nil && i.Name.Name == "." {
				t.Errorf("%s imports %s", set.Position(i.Pos()), i.Path.Value)
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			x, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if from, ok := x.X.(*ast.Ident); ok && allowed[from.Name] != nil && !slices.Contains(allowed[from.Name], x.Sel.Name) {
				t.Errorf("%s: %s.%s", set.Position(x.Pos()), from.Name, x.Sel.Name)
			} else if ok {
				seen[from.Name] = true
			}
			if slices.Contains(forbidden, x.Sel.Name) {
				t.Errorf("%s: a call or field named %s", set.Position(x.Pos()), x.Sel.Name)
			}
			return true
		})
	}
	if !seen["seal"] || !seen["x509"] {
		t.Errorf("looked at %v only", seen)
	}
}
