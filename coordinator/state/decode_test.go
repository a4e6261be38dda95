package state_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"choir.example/coordinator/state"
	"choir.example/privacy/audit"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

func encoded(t testing.TB, text string) []byte {
	t.Helper()
	b, err := command(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// stateAt is the state at the end of a stage of a transcript, and an entry that would come next.
func stateAt(t testing.TB, name, stage string) (*state.State, entry) {
	t.Helper()
	if stages[name] == nil {
		stages[name] = map[string]staged{}
		s := state.New()
		load(t, name).play(t, func(now string, e entry) []string {
			s, _ = e.apply(s)
			stages[name][now] = staged{s, entry{index: e.index + 1, term: e.term}}
			return nil
		})
	}
	at, ok := stages[name][stage]
	if !ok {
		t.Fatalf("transcript %s has no stage %q", name, stage)
	}
	return at.s, at.next
}

type staged struct {
	s    *state.State
	next entry
}

// stages keeps what stateAt has replayed, by transcript and stage: states do not change.
var stages = map[string]map[string]staged{}

// refused applies a command that must be refused, and checks that nothing but the index moved.
func refused(t *testing.T, s *state.State, e entry, want string) error {
	t.Helper()
	next, err := e.apply(s)
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Fatalf("refusal %q, want one with %q", text(err), want)
	}
	same := *next
	same.Index = s.Index
	if next.Index != e.index || snap(t, &same) != snap(t, s) {
		t.Fatalf("the refused command changed the state")
	}
	return err
}

func TestCommandsHaveOneEncoding(t *testing.T) {
	token := encoded(t, `create_token { id: "t9" secret_hash: @s expires_ms: 9000 role: "node" labels { key: "a" value: "1" } labels { key: "b" value: "2" } }`)
	body, n := protowire.ConsumeBytes(token[3:])
	if n < 0 || token[0] != 0x08 || token[2] != 0x22 {
		t.Fatalf("a token's command begins with % x", token[:3])
	}
	// build puts a body that replaces the token's into a command.
	build := func(body []byte) []byte { return protowire.AppendBytes(bytes.Clone(token[:3]), body) }
	label := func(b []byte) []byte { return protowire.AppendBytes([]byte{0x2a}, b) }
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"nothing", nil, "version 0, want 1"},
		{"noise", []byte("no protobuf"), "malformed"},
		{"truncated", token[:len(token)-1], "malformed"},
		{"no body", []byte{0x08, 1}, "no body"},
		{"version 0", token[2:], "version 0, want 1"},
		{"version 2", append([]byte{0x08, 2}, token[2:]...), "version 2, want 1"},
		{"a byte more", append(bytes.Clone(token), 0), "malformed"},
		{"unknown field", append(bytes.Clone(token), 0xf8, 0x07, 1), "unknown field"},
		{"unknown command", append([]byte{0x08, 1}, 0xfa, 0x07, 0), "unknown field"},
		{"unknown field inside", build(append(bytes.Clone(body), 0xf8, 0x07, 1)), "unknown field"},
		{"unknown field in a label", build(append(bytes.Clone(body), label([]byte{0x0a, 1, 'c', 0x18, 1})...)), "canonical"},
		{"version twice", append(bytes.Clone(token), 0x08, 1), "canonical"},
		{"version last", append(bytes.Clone(token[2:]), 0x08, 1), "canonical"},
		{"long varint", append([]byte{0x08, 0x81, 0}, token[2:]...), "canonical"},
		{"body twice", append(bytes.Clone(token), token[2:]...), "canonical"},
		{"two bodies", append(bytes.Clone(token), 0x2a, 0), "canonical"},
		{"zero written out", build(append(bytes.Clone(body), 0x18, 0)), "canonical"},
		{"label twice", build(append(bytes.Clone(body), label([]byte{0x0a, 1, 'b', 0x12, 1, '2'})...)), "canonical"},
		{"labels out of order", build(append(bytes.Clone(body), label([]byte{0x0a, 1, 'A', 0x12, 1, '2'})...)), "canonical"},
		{"no UTF-8", build(append([]byte{0x0a, 1, 0xff}, body...)), "malformed"},
		{"too large", append(bytes.Clone(token), make([]byte, state.MaxCommand)...), "at most 65536 are allowed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, e := stateAt(t, "job", "training open")
			e.data = c.data
			if err := refused(t, s, e, c.want); !errors.Is(err, state.ErrFormat) {
				t.Errorf("%v is not ErrFormat", err)
			}
		})
	}
	s, e := stateAt(t, "job", "training open")
	e.data = token
	if _, err := e.apply(s); err != nil {
		t.Errorf("the token itself is refused: %v", err)
	}
}

func TestEncodeRefusesALargeCommand(t *testing.T) {
	c := &choirv1.Command{Body: &choirv1.Command_Genesis{Genesis: &choirv1.Genesis{Root: make([]byte, state.MaxCommand)}}}
	if _, err := state.Encode(c); err == nil || !strings.Contains(err.Error(), "at most 65536 are allowed") {
		t.Errorf("Encode: %v", err)
	}
}

// bodies are the commands that the schema knows.
func bodies() protoreflect.FieldDescriptors {
	return (&choirv1.Command{}).ProtoReflect().Descriptor().Oneofs().ByName("body").Fields()
}

func TestEveryCommandIsHandled(t *testing.T) {
	founded, e := stateAt(t, "job", "training open")
	for _, s := range []*state.State{state.New(), founded} {
		for i := range bodies().Len() {
			c, f := &choirv1.Command{}, bodies().Get(i)
			c.ProtoReflect().Set(f, c.ProtoReflect().NewField(f))
			var err error
			if e.data, err = state.Encode(c); err != nil {
				t.Fatal(err)
			}
			if err := refused(t, s, e, ""); strings.Contains(err.Error(), "unknown command") {
				t.Errorf("%s: Apply has no case for it", f.Name())
			}
		}
	}
}

func TestNothingComesBeforeTheGenesis(t *testing.T) {
	refused(t, state.New(), entry{1, 1, encoded(t, `end_job { job: "a" }`)}, "the federation is not founded yet")
}

// Every command and every kind of record is part of a story.
func TestTranscriptsTellOfEverything(t *testing.T) {
	commands, kinds := map[protoreflect.Name]bool{}, map[audit.Kind]bool{}
	for _, tr := range transcripts(t) {
		s := state.New()
		for _, e := range tr.entries(t) {
			next, err := e.apply(s)
			c := &choirv1.Command{}
			if err == nil && proto.Unmarshal(e.data, c) == nil {
				m := c.ProtoReflect()
				commands[m.WhichOneof(m.Descriptor().Oneofs().ByName("body")).Name()] = true
			}
			for i := s.Log.Size(); i < next.Log.Size(); i++ {
				r, err := audit.Decode(next.Log.Record(i))
				if err != nil {
					t.Fatal(err)
				}
				kinds[r.Kind()] = true
			}
			s = next
		}
	}
	for i := range bodies().Len() {
		if name := bodies().Get(i).Name(); !commands[name] {
			t.Errorf("no transcript has an accepted %s", name)
		}
	}
	for k := audit.KindGenesis; !strings.HasPrefix(k.String(), "kind"); k++ {
		if !kinds[k] {
			t.Errorf("no transcript has a record %v", k)
		}
	}
}
