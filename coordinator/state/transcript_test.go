package state_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"choir.example/coordinator/state"
	"choir.example/model"
	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

var rewrite = flag.Bool("rewrite", false, "write what the transcripts in testdata give now into them")

// A transcript is a story in testdata. Its lines are
//
//	# words to the reader
//	== name of a stage ==
//	include STORY             what that story did comes first
//	term N                    the entries that follow are of this term
//	> command                 choirv1.Command as protobuf text, with the short forms of expand
//
// and below each command what came of it: its index and "ok" or the refusal, each field of the state that changed, and
// each record that was appended to the audit log.
type transcript struct {
	name  string
	lines []string
}

func transcripts(t testing.TB) []transcript {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	var out []transcript
	for _, f := range files {
		out = append(out, load(t, strings.TrimSuffix(filepath.Base(f), ".txt")))
	}
	return out
}

func load(t testing.TB, name string) transcript {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	return transcript{name, strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")}
}

// entry is one entry of the log as raft hands it to Apply.
type entry struct {
	index, term uint64
	data        []byte
}

// play feeds the story's commands to f in order, those of included stories first, and returns its lines with what f
// returns put below each command.
func (tr transcript) play(t testing.TB, f func(stage string, e entry) []string) (told []string) {
	t.Helper()
	return tr.from(t, &entry{term: 1}, f)
}

func (tr transcript) from(t testing.TB, e *entry, f func(stage string, e entry) []string) (told []string) {
	t.Helper()
	stage := ""
	for n, line := range tr.lines {
		word, rest, _ := strings.Cut(line, " ")
		var err error
		var below []string
		switch word {
		case ">":
			e.index++
			if e.data, err = command(rest); err == nil {
				below = f(stage, *e)
			}
		case "==":
			stage = strings.Trim(rest, "= ")
		case "term":
			e.term, err = strconv.ParseUint(rest, 10, 64)
		case "include":
			load(t, rest).from(t, e, f)
		case "#":
		default:
			if line != "" {
				continue // what came of a command when this was written
			}
		}
		if err != nil {
			t.Fatalf("testdata/%s.txt:%d: %v", tr.name, n+1, err)
		}
		told = append(append(told, line), below...)
	}
	return told
}

func TestTranscriptsTellWhatApplyDoes(t *testing.T) {
	for _, tr := range transcripts(t) {
		t.Run(tr.name, func(t *testing.T) {
			s := state.New()
			told := tr.play(t, func(_ string, e entry) []string {
				next, refused := state.Apply(s, e.index, e.term, e.data)
				lines := outcome(t, s, next, refused)
				s = next
				return lines
			})
			if *rewrite {
				if err := os.WriteFile("testdata/"+tr.name+".txt", []byte(strings.Join(told, "\n")+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			for i := range max(len(told), len(tr.lines)) {
				if got, want := at(told, i), at(tr.lines, i); got != want {
					t.Fatalf("testdata/%s.txt:%d:\n got %q\nwant %q\nIf the change is meant: go test -run Transcripts -rewrite, and read the diff.", tr.name, i+1, got, want)
				}
			}
		})
	}
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(end)"
}

// digestOf is what @name stands for.
func digestOf(name string) []byte {
	d := sha256.Sum256([]byte(name))
	return d[:]
}

var (
	digestForm = regexp.MustCompile(`@[a-z0-9.-]+`)
	bitsForm   = regexp.MustCompile(`\$bits\(([01]*)\)`)
	keyForm    = regexp.MustCompile(`\$(root|key|chain|issuer|print|nextroot|rootprint|cross|nextchain|nextissuer|laterchain|laterissuer|admit|replace)\(([a-z]*)\)`)
	evalForm   = regexp.MustCompile(`\$eval\(([^;)]*);([^;)]*);([^)]*)\)`)
	named      = map[string]string{} // digest in hex → @name, for telling
)

// expand replaces the short forms: @name is the digest of the name; $bits(1101) is a bitmap, first bit first;
// $eval(3; 700×30 500×2; 300×40) is an evaluation over 3 nodes, with 30 positive examples in bin 700, and so on;
// $root() is a root certificate, $key(dora) the public key of that name, $chain(dora) and $issuer(dora) the root's
// certificates of it for a coordinator and an issuer of that name, $print(dora) the fingerprint of the former. $nextroot() is the root that follows, $rootprint() the fingerprint of the
// first, $cross() the first one's certificate for the other; $nextchain(dora) and $nextissuer(dora) are of the next root,
// $laterchain(dora) and $laterissuer(dora) those of it that last longer. $admit(olga) is the first root's statement that the
// key @olga is officer olga's, $replace(olga) the next one's that it is in the place of @oskar.
func expand(text string) string {
	text = keyForm.ReplaceAllStringFunc(text, func(m string) string {
		p := keyForm.FindStringSubmatch(m)
		return quoted(certified(p[1], p[2]))
	})
	text = evalForm.ReplaceAllStringFunc(text, func(m string) string {
		p := evalForm.FindStringSubmatch(m)
		positives, n, good := histogram(p[2], func(bin int) bool { return bin >= model.Bins/2 })
		negatives, k, fine := histogram(p[3], func(bin int) bool { return bin < model.Bins/2 })
		return fmt.Sprintf("nodes: %s examples: %d correct: %d loss: %d positives: %s negatives: %s",
			p[1], n+k, good+fine, (n+k)<<19, positives, negatives)
	})
	text = bitsForm.ReplaceAllStringFunc(text, func(m string) string {
		bits := bitsForm.FindStringSubmatch(m)[1]
		b := make([]byte, (len(bits)+7)/8)
		for i, c := range bits {
			b[i/8] |= byte(c-'0') << (i % 8)
		}
		return quoted(b)
	})
	return digestForm.ReplaceAllStringFunc(text, func(m string) string {
		named[hex.EncodeToString(digestOf(m[1:]))] = m
		return quoted(digestOf(m[1:]))
	})
}

// theRoot is the root of stories with certificates. They are valid from noon.
var (
	noon    = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	theRoot = sync.OnceValue(func() *seal.Root {
		root, err := seal.NewRoot("shop", noon, rand.NewChaCha8([32]byte{12}))
		if err != nil {
			panic(err)
		}
		return root
	})
)

// nextRoot is the root that follows theRoot.
var nextRoot = sync.OnceValue(func() *seal.Root {
	root, err := seal.NewRoot("shop", noon, rand.NewChaCha8([32]byte{13}))
	if err != nil {
		panic(err)
	}
	return root
})

// later is how long certificates of the next root last: those that are renewed longer.
func later(what string) time.Duration {
	if strings.HasPrefix(what, "later") {
		return 2 * time.Hour
	}
	return time.Hour
}

func keyOf(name string) ed25519.PublicKey {
	key := ed25519.NewKeyFromSeed(digestOf("key of " + name)).Public().(ed25519.PublicKey)
	named[hex.EncodeToString(key)] = "$key(" + name + ")"
	return key
}

// certified is a certificate or key of a name.
func certified(what, name string) []byte {
	var chain [][]byte
	var der []byte
	var err error
	switch what {
	case "root":
		return theRoot().Certificate().Raw
	case "key":
		return keyOf(name)
	case "chain":
		if chain, err = theRoot().Certify(seal.RoleCoordinator, name, keyOf(name), noon, time.Hour); err == nil {
			der = chain[0]
		}
	case "print":
		sum := sha256.Sum256(certified("chain", name))
		named[hex.EncodeToString(sum[:])] = "$print(" + name + ")"
		return sum[:]
	case "nextroot":
		return nextRoot().Certificate().Raw
	case "rootprint":
		return digestOf(string(theRoot().Certificate().Raw))
	case "cross":
		der, err = theRoot().CertifySuccessor(nextRoot().Certificate(), noon)
	case "nextchain", "laterchain":
		if chain, err = nextRoot().Certify(seal.RoleCoordinator, name, keyOf(name), noon, later(what)); err == nil {
			der = chain[0]
		}
	case "nextissuer", "laterissuer":
		der, err = nextRoot().CertifyIssuer(name, keyOf(name+"issuer"), noon, later(what))
	case "admit":
		return theRoot().AdmitOfficer([32]byte(digestOf(name)), [32]byte{}, name)
	case "replace": // oskar, by the next root
		return nextRoot().AdmitOfficer([32]byte(digestOf(name)), [32]byte(digestOf("oskar")), name)
	case "issuer":
		der, err = theRoot().CertifyIssuer(name, keyOf(name+"issuer"), noon, time.Hour)
	}
	if err != nil {
		panic(fmt.Sprintf("%s of %s: %v", what, name, err))
	}
	return der
}

// histogram reads "700×30 500×2" and returns it as a protobuf list, its sum, and the sum over the bins that are right.
func histogram(text string, right func(bin int) bool) (list string, sum, correct int64) {
	h := make([]int64, model.Bins)
	for _, f := range strings.Fields(text) {
		var bin int
		var n int64
		if _, err := fmt.Sscanf(f, "%d×%d", &bin, &n); err != nil {
			panic(fmt.Sprintf("histogram %q: %v", text, err))
		}
		h[bin] += n
		sum += n
		if right(bin) {
			correct += n
		}
	}
	return strings.ReplaceAll(fmt.Sprint(h), " ", ","), sum, correct
}

func quoted(b []byte) string {
	var w strings.Builder
	w.WriteByte('"')
	for _, c := range b {
		fmt.Fprintf(&w, `\x%02x`, c)
	}
	w.WriteByte('"')
	return w.String()
}

// command reads a command's text and encodes it. What a job's specification leaves out is as in usual; one with an
// algorithm has the numbers alone that every job has.
func command(text string) ([]byte, error) {
	c := &choirv1.Command{}
	if err := prototext.Unmarshal([]byte(expand(text)), c); err != nil {
		return nil, fmt.Errorf("command %q: %w", text, err)
	}
	if s := c.GetSubmitJob(); s != nil && s.Spec != nil {
		spec := usual()
		if s.Spec.Algorithm != nil {
			spec = &choirv1.JobSpec{Rounds: spec.Rounds, WeightCap: spec.WeightCap, DurationMs: spec.DurationMs, MaxAttempts: spec.MaxAttempts}
		}
		proto.Merge(spec, s.Spec)
		s.Spec = spec
	}
	return state.Encode(c)
}

const schema = `{"name":"shop","columns":[{"name":"age","kind":"numeric","max":100},{"name":"buys","kind":"boolean"}],"label":"buys","unit":"visit"}`

func usual() *choirv1.JobSpec {
	return &choirv1.JobSpec{
		Schema: []byte(schema), Rounds: 1, LocalEpochs: 1, Batch: 32, LearningRate: 0.1, Range: 1, WeightCap: 1000,
		DurationMs: 1000, MaxAttempts: 2, GateInt8Ppm: 2000, GateStudentPpm: 10000, StudentTemperature: 2,
	}
}

// outcome tells what a command did, one fact a line.
func outcome(t testing.TB, before, after *state.State, refused error) []string {
	t.Helper()
	first := fmt.Sprintf("%d: ok", after.Index)
	if refused != nil {
		first = fmt.Sprintf("%d: refused: %s", after.Index, naming(refused.Error()))
	}
	lines := append([]string{first}, changes("", reflect.ValueOf(*before), reflect.ValueOf(*after))...)
	for i := before.Log.Size(); i < after.Log.Size(); i++ {
		r, err := audit.Decode(after.Log.Record(i))
		if err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
		lines = append(lines, fmt.Sprintf("  record %d: %v %s", i, r.Kind(), show(reflect.ValueOf(r))))
	}
	return lines
}

// changes lists what differs between two values of one type, by path.
func changes(path string, a, b reflect.Value) (lines []string) {
	if reflect.DeepEqual(a.Interface(), b.Interface()) {
		return nil
	}
	switch a.Kind() {
	case reflect.Pointer:
		return changes(path, a.Elem(), b.Elem())
	case reflect.Struct:
		for i := range a.NumField() {
			name := a.Type().Field(i).Name
			if path == "" && (name == "Index" || name == "Log") {
				continue // told otherwise
			}
			lines = append(lines, changes(strings.TrimPrefix(path+"."+name, "."), a.Field(i), b.Field(i))...)
		}
		return lines
	case reflect.Map:
		for _, key := range slices.Compact(slices.Sorted(slices.Values(append(names(a), names(b)...)))) {
			k := reflect.ValueOf(key)
			lines = append(lines, change(path+"."+naming(key), a.MapIndex(k), b.MapIndex(k))...)
		}
		return lines
	case reflect.Slice:
		if a.Type().Elem().Kind() == reflect.Uint8 {
			break
		}
		for i := range max(a.Len(), b.Len()) {
			var x, y reflect.Value
			if i < a.Len() {
				x = a.Index(i)
			}
			if i < b.Len() {
				y = b.Index(i)
			}
			lines = append(lines, change(fmt.Sprintf("%s[%d]", path, i), x, y)...)
		}
		return lines
	}
	return []string{fmt.Sprintf("  %s: %s → %s", path, show(a), show(b))}
}

func names(m reflect.Value) (keys []string) {
	for _, k := range m.MapKeys() {
		keys = append(keys, k.String())
	}
	return keys
}

// change is about an element that may be missing on either side.
func change(path string, a, b reflect.Value) []string {
	switch {
	case !a.IsValid():
		return []string{fmt.Sprintf("  %s: new %s", path, show(b))}
	case !b.IsValid():
		return []string{fmt.Sprintf("  %s: gone", path)}
	}
	return changes(path, a, b)
}

// show writes a value without its zero fields; digests by the names the story gives them, histograms by their sum.
func show(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Pointer:
		return show(v.Elem())
	case reflect.Struct:
		var fields []string
		for i := range v.NumField() {
			if f := v.Field(i); !f.IsZero() && !((f.Kind() == reflect.Map || f.Kind() == reflect.Slice) && f.Len() == 0) {
				fields = append(fields, v.Type().Field(i).Name+":"+show(f))
			}
		}
		return "{" + strings.Join(fields, " ") + "}"
	case reflect.Map:
		var parts []string
		for _, k := range slices.Sorted(slices.Values(names(v))) {
			parts = append(parts, k+":"+show(v.MapIndex(reflect.ValueOf(k))))
		}
		return "{" + strings.Join(parts, " ") + "}"
	case reflect.Slice, reflect.Array:
		return showList(v)
	case reflect.String:
		return strconv.Quote(naming(v.String()))
	}
	return fmt.Sprint(v.Interface())
}

func showList(v reflect.Value) string {
	switch v.Type().Elem().Kind() {
	case reflect.Uint8:
		b := make([]byte, v.Len())
		reflect.Copy(reflect.ValueOf(b), v)
		return showBytes(b)
	case reflect.Int64:
		var sum int64
		for i := range v.Len() {
			sum += v.Index(i).Int()
		}
		return fmt.Sprintf("(%d bins, %d examples)", v.Len(), sum)
	}
	var parts []string
	for i := range v.Len() {
		parts = append(parts, show(v.Index(i)))
	}
	return "[" + strings.Join(parts, " ") + "]"
}

func showBytes(b []byte) string {
	switch {
	case len(b) == 0 || len(b) == 32 && bytes.Equal(b, make([]byte, 32)):
		return "none"
	case len(b) == 32:
		return naming(hex.EncodeToString(b))
	case len(b) > 32:
		return fmt.Sprintf("(%d bytes)", len(b))
	}
	return fmt.Sprintf("%q", b)
}

var hexForm = regexp.MustCompile(`[0-9a-f]{64}`)

// naming replaces digests by their names, or by their first digits.
func naming(text string) string {
	return hexForm.ReplaceAllStringFunc(text, func(d string) string {
		if name, ok := named[d]; ok {
			return name
		}
		return d[:8] + "…"
	})
}
