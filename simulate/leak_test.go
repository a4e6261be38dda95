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
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"choir.example/model"
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
	text     string             // in a column of the file that the schema does not name
	category string             // of a column: it stands in the schema, which travels and is kept, but only encrypted
	numbers  map[string]float64 // in a numeric column: the value, and what a node makes of it on its way to the model
}

// find names the forms that b contains. The category is looked for in what is encrypted. The short forms, of four bytes,
// are looked for only in what is not: among so many random bytes they would be found by chance.
func (s secret) find(b []byte, plain bool) (found []string) {
	forms := map[string][]byte{"the string": []byte(s.text)}
	for name, x := range s.numbers {
		bits, short := math.Float64bits(x), math.Float32bits(float32(x))
		forms[name+" in decimal"] = fmt.Appendf(nil, "%v", x)
		forms[name+", little-endian"] = binary.LittleEndian.AppendUint64(nil, bits)
		forms[name+", big-endian"] = binary.BigEndian.AppendUint64(nil, bits)
		forms[name+" in decimal, single precision"] = fmt.Appendf(nil, "%v", float32(x))
		if plain {
			forms[name+" in single precision, little-endian"] = binary.LittleEndian.AppendUint32(nil, short)
			forms[name+" in single precision, big-endian"] = binary.BigEndian.AppendUint32(nil, short)
		}
	}
	if !plain {
		forms["the category"] = []byte(s.category)
	}
	for name, form := range forms {
		if bytes.Contains(b, form) {
			found = append(found, name)
		}
	}
	return found
}

// planted is the numeric column that holds the secret.
const planted = "ProductRelated_Duration"

// newSecret is a secret with a value of the planted column, of whose schema it is made known.
func newSecret(t *testing.T, schema *data.Schema) secret {
	t.Helper()
	s := secret{text: "planted-b7c1e9d2-never-to-be-seen", category: "planted-c0ffee-sealed", numbers: map[string]float64{"the number": 13579.246801357913}}
	schema.Ignore = append(schema.Ignore, "Note")
	for i := range schema.Columns {
		switch c := &schema.Columns[i]; {
		case c.Name == planted:
			if !c.LongTail {
				t.Fatal("the planted column is not on a logarithmic scale")
			}
			s.numbers["its logarithm"] = math.Log1p(s.numbers["the number"])
			s.numbers["its scaled value"] = (math.Log1p(s.numbers["the number"]) - math.Log1p(c.Min)) / (math.Log1p(c.Max) - math.Log1p(c.Min))
		case c.Name == "VisitorType":
			c.Categories = append(c.Categories, s.category)
		}
	}
	return s
}

// plant puts the secret into copies of rows.
func (s secret) plant(schema *data.Schema, rows []data.Row) []data.Row {
	out := make([]data.Row, len(rows))
	for i := range rows {
		out[i] = append(data.Row{}, rows[i]...)
		for k, c := range schema.Columns {
			switch c.Name {
			case planted:
				out[i][k] = s.numbers["the number"]
			case "VisitorType":
				out[i][k] = float64(len(c.Categories) - 1)
			}
		}
	}
	return out
}

// standardise adds the feature that a released model makes of the number.
func (s secret) standardise(t *testing.T, released []byte, row data.Row) {
	t.Helper()
	m, err := model.Decode(released)
	if err != nil {
		t.Fatal(err)
	}
	with, without := make([]float32, m.Schema.Features()), make([]float32, m.Schema.Features())
	m.Statistics.Features(s.plant(m.Schema, []data.Row{row})[0], with)
	changed := append(data.Row{}, s.plant(m.Schema, []data.Row{row})[0]...)
	for k, c := range m.Schema.Columns {
		if c.Name == planted {
			changed[k] = c.Max
		}
	}
	m.Statistics.Features(changed, without)
	for i := range with {
		if with[i] != without[i] {
			s.numbers["its feature"] = float64(with[i])
		}
	}
	if s.numbers["its feature"] == 0 {
		t.Fatal("the number makes no feature")
	}
}

func TestSecretIsFound(t *testing.T) {
	s := secret{"a string", "a category", map[string]float64{"the number": 1234.5678901234567, "its root": 35.13641828820144}}
	hidden := fmt.Sprintf("xx%sxx%vxx%vxx%s", s.text, s.numbers["the number"], float32(s.numbers["its root"]), s.category)
	hidden += string(binary.LittleEndian.AppendUint64(nil, math.Float64bits(s.numbers["its root"])))
	if got := s.find([]byte(hidden), false); len(got) != 5 {
		t.Errorf("found %v", got)
	}
	hidden = string(binary.BigEndian.AppendUint32(nil, math.Float32bits(float32(s.numbers["the number"])))) + s.category
	if got := s.find([]byte(hidden), true); len(got) != 1 {
		t.Errorf("found %v", got)
	}
	if got := s.find([]byte("nothing here"), true); len(got) != 0 {
		t.Errorf("found %v", got)
	}
}

// csvWithSecret is a file of rows that hold the secret, in a column of its own, too.
func csvWithSecret(t *testing.T, schema *data.Schema, rows []data.Row, s secret) string {
	t.Helper()
	var file bytes.Buffer
	if err := data.WriteCSV(&file, schema, s.plant(schema, rows)); err != nil {
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
	if found := s.find([]byte(out), false); !slices.Contains(found, "the string") || !slices.Contains(found, "the category") || !slices.Contains(found, "the number in decimal") {
		t.Fatalf("the secret is not in the file, only %v: %s", found, out)
	}
	return out
}

// Nothing of a row leaves its node: a string, a category and a number are planted in rows of one node. They, and what is
// made of the number on its way to the model, are found nowhere in all that crosses the wire, in the files of all
// processes, in the logs, nor, decrypted, in what nodes sign and in what is published. The category is no secret once it is
// decrypted, since the schema lists it; that it is not seen shows that wire and disks hold nothing in clear.
func TestNothingLeaks(t *testing.T) {
	t.Parallel()
	schema, parts := testParts(t, 3, 0)
	s := newSecret(t, schema)
	network, wire, log, signed := NewNetwork(), &recorder{}, &recorder{}, &recorder{}
	network.Capture(wire)
	dir, served := t.TempDir(), make(chan string, 3)
	f, err := Start(t.Context(), FederationConfig{
		Dir: dir, Cluster: "test", Coordinators: 3, Schema: schema, Parts: parts, Network: network, Serve: true,
		Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Node: func(string) node.Observer {
			return node.Observer{
				Sending:  func(_ string, _ uint64, _ uint32, payload []byte) { _, _ = signed.Write(payload) },
				Released: func(model string, _ uint64, _ string) { served <- model },
			}
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
	s.standardise(t, releasedBy(t, f, spec), parts[1].Train[0])
	for range parts {
		<-served // each node has the release on its disk
	}
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
	searchFiles(t, dir, s, len(parts))
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

// releasedBy is the file of the float32 model.
func releasedBy(t *testing.T, f *Federation, spec *choirv1.JobSpec) []byte {
	t.Helper()
	rel, err := f.Operator().GetRelease(t.Context(), &choirv1.ReleaseRequest{Model: spec.Model})
	if err != nil {
		t.Fatal(err)
	}
	body, err := f.Blob(t.Context(), rel.Variants[0].Blob)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// inClear are the files that are not encrypted.
var inClear = regexp.MustCompile(`^(release-.*\.choir|sent\.log|http\.token|run\.bundle|root\.fingerprint)$`)

// searchFiles looks into every file that the federation has left, and that others cannot read it.
func searchFiles(t *testing.T, dir string, s secret, nodes int) {
	t.Helper()
	encrypted, plain := 0, map[string]int{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if found := s.find(b, inClear.MatchString(d.Name())); len(found) > 0 {
			t.Errorf("%s holds %v", path, found)
		}
		if inClear.MatchString(d.Name()) {
			plain[filepath.Ext(d.Name())]++
		} else {
			encrypted++
		}
		if filepath.Ext(d.Name()) == ".choir" && !bytes.Contains(b, []byte(s.category)) {
			t.Errorf("%s does not hold the schema's category", path)
		}
		if info, err := d.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v, others can read it (%v)", path, info.Mode(), err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if encrypted < 10*nodes || plain[".choir"] != nodes || plain[".log"] != nodes {
		t.Errorf("only %d encrypted files were searched, and %v others", encrypted, plain)
	}
}

// What the demo leaves for people, its page and its bundle, holds nothing of a row, and of what a model makes of it.
func TestTheDemosPageHoldsNoRow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d, err := newDemo(DemoConfig{
		Dir: filepath.Join(dir, "files"), Report: filepath.Join(dir, "report.html"), Coordinators: 1, Nodes: 2, Rounds: 1,
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	s := newSecret(t, d.schema)
	d.spec.Schema = d.schema.Encode()
	d.spec.GateInt8Ppm, d.spec.GateStudentPpm = 1_000_000, 1_000_000
	rows := d.parts[0].Train
	copy(rows, s.plant(d.schema, rows[:5]))
	copy(d.parts[0].Validation, s.plant(d.schema, d.parts[0].Validation[:5]))
	if _, err := d.run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	released, err := filepath.Glob(filepath.Join(dir, "files", NodeName(0), "release-*.choir"))
	if err != nil || len(released) != 1 {
		t.Fatalf("%q, %v", released, err)
	}
	kept, err := os.ReadFile(released[0])
	if err != nil {
		t.Fatal(err)
	}
	s.standardise(t, kept[40:], rows[0])
	for _, path := range []string{d.cfg.Report, filepath.Join(dir, "files", "audit", "run.bundle")} {
		b, err := os.ReadFile(path)
		if err != nil || len(b) < 1000 {
			t.Errorf("%s: %d bytes, %v", path, len(b), err)
		}
		if found := s.find(b, true); len(found) > 0 {
			t.Errorf("%s holds %v", path, found)
		}
	}
	searchFiles(t, filepath.Join(dir, "files"), s, 2)
}
