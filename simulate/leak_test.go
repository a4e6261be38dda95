package simulate

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"choir.example/model/data"
	"choir.example/node"
	choirv1 "choir.example/proto/choir/v1"
)

// recorder keeps everything that is written to it.
type recorder struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (r *recorder) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(b)
}

// secret is what the planted rows hold, in every form in which it might leave.
type secret struct {
	text  string  // in a column of the file that the schema does not name
	value float64 // in a numeric column
}

// find names the forms that b contains. The short ones, of four bytes, are looked for only in what is not encrypted:
// among so many random bytes they would be found by chance.
func (s secret) find(b []byte, plain bool) (found []string) {
	bits := math.Float64bits(s.value)
	forms := map[string][]byte{
		"the string":                []byte(s.text),
		"the number in decimal":     fmt.Appendf(nil, "%v", s.value),
		"the number, little-endian": binary.LittleEndian.AppendUint64(nil, bits),
		"the number, big-endian":    binary.BigEndian.AppendUint64(nil, bits),
	}
	if plain {
		short := math.Float32bits(float32(s.value))
		forms["the number in single precision, little-endian"] = binary.LittleEndian.AppendUint32(nil, short)
		forms["the number in single precision, big-endian"] = binary.BigEndian.AppendUint32(nil, short)
	}
	for name, form := range forms {
		if bytes.Contains(b, form) {
			found = append(found, name)
		}
	}
	return found
}

func TestSecretIsFound(t *testing.T) {
	s := secret{"a string", 1234.5678901234567}
	hidden := fmt.Sprintf("xx%sxx%vxx", s.text, s.value)
	hidden += string(binary.LittleEndian.AppendUint64(nil, math.Float64bits(s.value)))
	if got := s.find([]byte(hidden), false); len(got) != 3 {
		t.Errorf("found %v", got)
	}
	if got := s.find([]byte("nothing here"), true); len(got) != 0 {
		t.Errorf("found %v", got)
	}
}

// csvWithSecret is a file of rows that hold the secret, in a column of its own and as the duration on the pages.
func csvWithSecret(t *testing.T, schema *data.Schema, rows []data.Row, s secret) string {
	t.Helper()
	for i := range rows {
		rows[i] = append(data.Row{}, rows[i]...)
		for k, c := range schema.Columns {
			if c.Name == "ProductRelated_Duration" {
				rows[i][k] = s.value
			}
		}
	}
	var file bytes.Buffer
	if err := data.WriteCSV(&file, schema, rows); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(file.String()), "\n")
	for i, l := range lines {
		extra := s.text
		if i == 0 {
			extra = "Note"
		}
		lines[i] = strings.TrimRight(l, "\r") + "," + extra
	}
	out := strings.Join(lines, "\n") + "\n"
	if len(s.find([]byte(out), false)) != 2 {
		t.Fatalf("the secret is not in the file: %s", out)
	}
	return out
}

// Nothing of a row leaves its node: a string and a number are planted in rows of one node, and are found nowhere in all
// that crosses the wire, in the files of all processes, in the logs, nor, decrypted, in what nodes sign and in what is
// published.
func TestNothingLeaks(t *testing.T) {
	s := secret{"planted-b7c1e9d2-never-to-be-seen", 13579.246801357913}
	schema, parts := testParts(t, 3, 0)
	schema.Ignore = append(schema.Ignore, "Note")
	network, wire, log, signed := NewNetwork(), &recorder{}, &recorder{}, &recorder{}
	network.Capture(wire)
	dir := t.TempDir()
	f, err := Start(t.Context(), FederationConfig{
		Dir: dir, Cluster: "test", Coordinators: 3, Schema: schema, Parts: parts, Network: network, Serve: true,
		Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Node: func(string) node.Observer {
			return node.Observer{Sending: func(_ string, _ uint64, _ uint32, payload []byte) { _, _ = signed.Write(payload) }}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	defer func() {
		if !closed {
			_ = f.Close()
		}
	}()
	store := f.Node("node-02").Store()
	for i, part := range node.Parts() {
		file := csvWithSecret(t, schema, parts[1].Train[5*i:5*i+5], s) // another file each: the same one would count once
		done, err := store.Import(t.Context(), strings.NewReader(file), node.Source{Name: "planted.csv", Part: part})
		if err != nil || done.Added != 5 {
			t.Fatalf("import: %v, %v", done, err)
		}
	}
	spec := PurchaseJob(schema, len(parts), 2, 0)
	spec.StudentRows, spec.StudentEpochs, spec.GateStudentPpm = 500, 2, 1_000_000
	status := runJob(t, f, spec)
	published := publishedBy(t, f, spec, status)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	closed = true

	for name, b := range map[string][]byte{"what nodes signed": signed.buf.Bytes(), "the logs": log.buf.Bytes(), "what is published": published} {
		if len(b) == 0 {
			t.Errorf("%s is empty", name)
		}
		if found := s.find(b, true); len(found) > 0 {
			t.Errorf("%s holds %v", name, found)
		}
	}
	if found := s.find(wire.buf.Bytes(), false); wire.buf.Len() < 100_000 || len(found) > 0 {
		t.Errorf("the wire carried %d bytes and among them %v", wire.buf.Len(), found)
	}
	searchFiles(t, dir, s)
}

// publishedBy is all that an operator can read: models of all rounds, variants, the audit log.
func publishedBy(t *testing.T, f *Federation, spec *choirv1.JobSpec, status *choirv1.JobStatus) []byte {
	t.Helper()
	out, err := f.Bundle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rel, err := f.Operator().GetRelease(t.Context(), &choirv1.ReleaseRequest{Model: spec.Model})
	if err != nil {
		t.Fatal(err)
	}
	var ids [][]byte
	for _, v := range rel.Variants {
		ids = append(ids, v.Blob)
	}
	for _, r := range status.Rounds {
		if len(r.Model) > 0 {
			ids = append(ids, r.Model)
		}
	}
	for _, id := range ids {
		body, err := f.Blob(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, body...)
	}
	return out
}

// searchFiles looks into every file that the federation has left, and that others cannot read it.
func searchFiles(t *testing.T, dir string, s secret) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if found := s.find(b, false); len(found) > 0 {
			t.Errorf("%s holds %v", path, found)
		}
		if info, err := d.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v, others can read it (%v)", path, info.Mode(), err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 20 {
		t.Errorf("only %d files were searched", files)
	}
}
