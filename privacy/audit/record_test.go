package audit

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"choir.example/internal/canon"
)

// dig is a digest of one repeated byte.
func dig(b byte) [32]byte { return [32]byte(bytes.Repeat([]byte{b}, 32)) }

// example is one value of each type that has an encoding, with the encoding in hex. The hex must never change: records
// of years ago are checked by their bytes. Digests are written short, as dig(0xaa) is written <aa>.
type example struct {
	value visitable
	want  string
}

var examples = []example{
	{&Genesis{Cluster: "shop", Root: []byte{1, 2}, TimeMS: -1, Coordinators: []Coordinator{
		{Name: "a", Address: "h:1", Chain: [][]byte{{3}, {4, 5}}}, {Name: "b"}}},
		"01 01 0473686f70 020102 02 0161 03683a31 02 0103 020405 0162 00 00 01"},
	{&EpochAnnounced{Coordinator: "a", Epoch: 300, Recipient: "age1", Signature: []byte{9}}, "01 02 0161 ac02 0461676531 0109"},
	{&TokenCreated{ID: "t", Role: "node", ExpiresMS: 64}, "01 03 0174 046e6f6465 8001"},
	{&Enrolled{Node: "n", Key: []byte{7, 8}, Token: "t"}, "01 04 016e 020708 0174"},
	{&JobSubmitted{Job: "j", Spec: dig(0xaa)}, "01 05 016a <aa>"},
	{&RoundOpened{Job: "j", Round: 2, Attempt: 1, RoundKind: 3, Plan: dig(0xaa), Model: dig(0xbb),
		Candidates: [][32]byte{dig(0xcc), dig(0xdd)}, Cohort: []string{"m", "n"}, MinimumCohort: 2, Goal: 3},
		"01 06 016a 02 01 03 <aa> <bb> 02 <cc> <dd> 02 016d 016e 02 03"},
	{&BatchAccepted{Job: "j", Round: 2, Attempt: 1, Batch: dig(0xaa), Sum: dig(0xbb), Coordinator: "a",
		Accepted: []Accepted{{"m", dig(0xcc), 5}, {"n", dig(0xdd), 6}}},
		"01 07 016a 02 01 <aa> <bb> 0161 02 016d <cc> 0a 016e <dd> 0c"},
	{&RoundCut{Job: "j", Round: 2, Attempt: 1, Count: 2, Weight: 11}, "01 08 016a 02 01 02 16"},
	{&Charged{Job: "j", Round: 2, Attempt: 1, Mechanism: "none", Nodes: 2}, "01 09 016a 02 01 046e6f6e65 02"},
	{&RoundClosed{Job: "j", Round: 2, Attempt: 1, Count: 2, Weight: 11, Sum: dig(0xaa), Model: dig(0xbb),
		Statistics: dig(0xcc), EvalExamples: 3, EvalCorrect: 2, EvalLoss: -4},
		"01 0a 016a 02 01 02 16 <aa> <bb> <cc> 06 04 07"},
	{&RoundAbandoned{Job: "j", Round: 2, Attempt: 1, Reason: "too few"}, "01 0b 016a 02 01 07746f6f20666577"},
	{&Released{Model: "m", Version: 1, Job: "j", Round: 2, Variants: []Variant{
		{"f", dig(0xaa), 128, true, ""}, {"i", dig(0xbb), 32, false, "x"}}},
		"01 0c 016d 01 016a 02 02 0166 <aa> 8001 01 00 0169 <bb> 20 00 0178"},
	{&Incident{Job: "j", Round: 2, Attempt: 1, Node: "n", Reason: "shape", First: []byte{1}, Second: []byte{2}},
		"01 0d 016a 02 01 016e 057368617065 0101 0102"},
	{&JobEnded{Job: "j", State: "failed", Reason: "x"}, "01 0e 016a 066661696c6564 0178"},
	{&TokenRevoked{ID: "t"}, "01 0f 0174"},
	{&NodeRevoked{Node: "n"}, "01 10 016e"},
	{&PersonRevoked{Fingerprint: dig(0xaa)}, "01 11 <aa>"},
	{&JoinRequested{Token: "t", Name: "a", Address: "h:1", Key: []byte{7, 8}, IssuerKey: []byte{9}, TimeMS: 64},
		"01 12 0174 0161 03683a31 020708 0109 8001"},
	{&CoordinatorApproved{Coordinator: Coordinator{Name: "a", Address: "h:1", Chain: [][]byte{{3}, {4, 5}}}, Issuer: []byte{6}, TimeMS: 64},
		"01 13 0161 03683a31 02 0103 020405 0106 8001"},
	{&CoordinatorRemoved{Name: "a"}, "01 14 0161"},
	{&JobControlled{Job: "j", Action: "stop", Rounds: 3, Spec: dig(0xaa)}, "01 15 016a 0473746f70 03 <aa>"},
	{&RootRotated{Old: dig(0xaa), Root: []byte{1}, Cross: []byte{2, 3}, Coordinators: []Certified{{"a", [][]byte{{3}, {4, 5}}, []byte{6}}, {Name: "b"}}, Retired: true, TimeMS: 64},
		"01 16 <aa> 0101 020203 02 0161 02 0103 020405 0106 0162 00 00 01 8001"},
	{&CoordinatorRenewed{Certified{"a", [][]byte{{3}}, []byte{6}}, 64}, "01 17 0161 01 0103 0106 8001"},
	{&OfficerAdmitted{Key: dig(0xaa), Replaces: dig(0xbb), Name: "o", Signature: []byte{9}}, "01 18 <aa> <bb> 016f 0109"},
	{&Receipt{Cluster: "shop", Job: "j", Round: 2, Attempt: 1, Node: "n", Update: dig(0xaa), Batch: dig(0xbb), Index: 200},
		"01 0473686f70 016a 02 01 016e <aa> <bb> c801"},
	{&Refusal{Cluster: "shop", Job: "j", Round: 2, Attempt: 1, Node: "n", Update: dig(0xaa), Index: 200, Reason: "late"},
		"01 0473686f70 016a 02 01 016e <aa> c801 046c617465"},
	{&Head{Cluster: "shop", Size: 2, Root: dig(0xaa), Signatures: []Signature{{"a", []byte{1}}, {"b", []byte{2, 3}}}},
		"01 0473686f70 02 <aa> 02 0161 0101 0162 020203"},
	{&Roster{Cluster: "shop", Version: 200, Coordinators: []Coordinator{{Name: "a", Address: "h:1", Chain: [][]byte{{3}}}, {Name: "b"}},
		Signatures: []Signature{{"a", []byte{1}}, {"b", []byte{2, 3}}}},
		"01 0473686f70 c801 02 0161 03683a31 01 0103 0162 00 00 02 0161 0101 0162 020203"},
	{&Proof{Record: []byte{6, 7}, Leaf: 1, Path: [][32]byte{dig(0xaa), dig(0xbb)},
		Head: Head{Cluster: "shop", Size: 3, Root: dig(0xcc), Signatures: []Signature{{"a", []byte{9}}}}},
		"01 020607 01 02 <aa> <bb> 0473686f70 03 <cc> 01 0161 0109"},
	{&Bundle{Root: []byte{1}, Chains: []Chain{{"a", [][]byte{{2}, {3, 4}}}, {"b", [][]byte{{5}}}}, Records: [][]byte{{6}, {7, 8}},
		Head: Head{Cluster: "shop", Size: 2, Root: dig(0xaa), Signatures: []Signature{{"a", []byte{9}}}}},
		"01 0101 02 0161 02 0102 020304 0162 01 0105 02 0106 020708 0473686f70 02 <aa> 01 0161 0109"},
}

func (e example) name() string { return strings.TrimPrefix(fmt.Sprintf("%T", e.value), "*audit.") }

// bytes is the wanted encoding.
func (e example) bytes(t testing.TB) []byte {
	t.Helper()
	text := strings.ReplaceAll(e.want, " ", "")
	for _, b := range []string{"aa", "bb", "cc", "dd"} {
		text = strings.ReplaceAll(text, "<"+b+">", strings.Repeat(b, 32))
	}
	out, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// encoding is the value's encoding by the exported functions; a bundle's without its first line and checksum.
func encoding(v visitable) []byte {
	switch v := v.(type) {
	case Record:
		return Encode(v)
	case *Receipt:
		return v.Encode()
	case *Refusal:
		return v.Encode()
	case *Head:
		return v.Encode()
	case *Roster:
		return v.Encode()
	case *Proof:
		return v.Encode()
	}
	return encode(v)
}

// decoded reads bytes as a value of the type of like, by the exported functions.
func decoded(like visitable, b []byte) (visitable, error) {
	switch like.(type) {
	case Record:
		return Decode(b)
	case *Receipt:
		r, err := DecodeReceipt(b)
		return &r, err
	case *Refusal:
		r, err := DecodeRefusal(b)
		return &r, err
	case *Head:
		h, err := DecodeHead(b)
		return &h, err
	case *Roster:
		r, err := DecodeRoster(b)
		return &r, err
	case *Proof:
		p, err := DecodeProof(b)
		return &p, err
	}
	return DecodeBundle(sealBundle(b))
}

func TestEncodingNeverChanges(t *testing.T) {
	for _, e := range examples {
		want := e.bytes(t)
		if got := encoding(e.value); !bytes.Equal(got, want) {
			t.Errorf("%s is encoded as %x, want %x", e.name(), got, want)
		}
		got, err := decoded(e.value, want)
		if err != nil {
			t.Errorf("%s: %v", e.name(), err)
			continue
		}
		if !bytes.Equal(encoding(got), want) || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", e.value) {
			t.Errorf("%s reads back as %+v", e.name(), got)
		}
	}
}

func TestEachKindHasAnExample(t *testing.T) {
	seen := map[Kind]bool{}
	for _, e := range examples {
		r, ok := e.value.(Record)
		if !ok {
			continue
		}
		seen[r.Kind()] = true
		if made := blank(r.Kind()); reflect.TypeOf(made) != reflect.TypeOf(e.value) {
			t.Errorf("a record of kind %v is read as %T", r.Kind(), made)
		}
	}
	for k := Kind(1); int(k) < len(kindNames); k++ {
		if !seen[k] {
			t.Errorf("no example of %v", k)
		}
	}
	if blank(0) != nil || blank(Kind(len(kindNames))) != nil {
		t.Error("a kind without a name has records")
	}
}

// Every field counts: setting any one of them, also in lists, changes the encoding, and the zero value reads back.
func TestEveryFieldIsEncoded(t *testing.T) {
	for _, e := range examples {
		base := encoding(e.value)
		eachLeaf(reflect.ValueOf(e.value).Elem(), "", func(name string, field reflect.Value) {
			old := reflect.ValueOf(field.Interface())
			change(field)
			if bytes.Equal(encoding(e.value), base) {
				t.Errorf("%s: field %s is not encoded", e.name(), name)
			}
			field.Set(old)
		})
		zero := reflect.New(reflect.TypeOf(e.value).Elem()).Interface().(visitable)
		got, err := decoded(zero, encoding(zero))
		if err != nil || !bytes.Equal(encoding(got), encoding(zero)) {
			t.Errorf("zero %s: %v", e.name(), err)
		}
	}
}

// eachLeaf visits the numbers, strings, digests and byte slices inside a struct.
func eachLeaf(v reflect.Value, name string, visit func(string, reflect.Value)) {
	switch {
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			eachLeaf(v.Field(i), name+"."+v.Type().Field(i).Name, visit)
		}
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() != reflect.Uint8:
		for i := range v.Len() {
			eachLeaf(v.Index(i), fmt.Sprintf("%s[%d]", name, i), visit)
		}
	default:
		visit(name, v)
	}
}

// change gives a field another value of the same length.
func change(v reflect.Value) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		v.SetUint(v.Uint() + 1)
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Slice:
		v.SetBytes(append(bytes.Clone(v.Bytes()), 1))
	case reflect.Array:
		v.Index(31).SetUint(v.Index(31).Uint() ^ 1)
	default:
		panic("no field of ours is a " + v.Kind().String())
	}
}

// Every flipped bit is another value or an error; what still decodes is the one encoding of what it decodes to. Every
// truncation and every appended byte is an error.
func TestDecodersTakeNothingElse(t *testing.T) {
	for _, e := range examples {
		b := e.bytes(t)
		for bit := range 8 * len(b) {
			damaged := bytes.Clone(b)
			damaged[bit/8] ^= 1 << (bit % 8)
			got, err := decoded(e.value, damaged)
			if err == nil && !bytes.Equal(encoding(got), damaged) {
				t.Errorf("%s with bit %d flipped decodes to a value that is encoded otherwise", e.name(), bit)
			}
		}
		for n := range b {
			if _, err := decoded(e.value, b[:n]); err == nil {
				t.Errorf("%s cut to %d of %d bytes was read", e.name(), n, len(b))
			}
		}
		if _, err := decoded(e.value, append(bytes.Clone(b), 0)); err == nil {
			t.Errorf("%s with a byte appended was read", e.name())
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, c := range []struct{ name, hex, want string }{
		{"nothing", "", "truncated"},
		{"version 0", "000e000000", "version 0 is not known"},
		{"version 2", "020e000000", "version 2 is not known"},
		{"version in two bytes", "81000e000000", "not minimal"},
		{"kind 0", "0100", "kind 0 is not known"},
		{"kind 25", "0119", "kind 25 is not known"},
		{"kind in two bytes", "018e00000000", "not minimal"},
		{"string longer than the record", "010e7f", "more than the input holds"},
		{"length in two bytes", "010e80000000", "not minimal"},
		{"attempt above 32 bits", "0108 00 00 8080808010 00 00", "4294967296 is larger than 4294967295"},
		{"round kind above 8 bits", "0106 00 00 00 8002", "256 is larger than 255"},
		{"boolean 2", "010c 00 00 00 00 01 00" + strings.Repeat("00", 32) + "00 02 00", "neither 0 nor 1"},
		{"number above 64 bits", "0108 00 ffffffffffffffffff02", "bad or truncated integer"},
		{"list longer than the record", "010c 00 00 00 00 ffffffffffffffff7f", "more than the input holds"},
	} {
		b, err := hex.DecodeString(strings.ReplaceAll(c.hex, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(b); err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "decode record") {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	for _, like := range []visitable{&Receipt{}, &Refusal{}, &Head{}, &Roster{}, &Bundle{}} {
		b := encoding(like)
		b[0] = 2
		if _, err := decoded(like, b); err == nil || !strings.Contains(err.Error(), "version 2 is not known") {
			t.Errorf("%T of version 2: %v", like, err)
		}
		if _, err := decoded(like, append([]byte{0x81, 0x00}, b[1:]...)); !errors.Is(err, canon.ErrEncoding) {
			t.Errorf("%T whose version takes two bytes: %v", like, err)
		}
	}
}

func TestExtremeNumbersReadBack(t *testing.T) {
	for _, r := range []Record{
		&RoundCut{Round: math.MaxUint64, Attempt: math.MaxUint32, Count: math.MaxUint64, Weight: math.MaxInt64},
		&RoundClosed{EvalExamples: math.MinInt64, EvalCorrect: math.MaxInt64, EvalLoss: -1},
		&RoundOpened{RoundKind: math.MaxUint8, MinimumCohort: math.MaxUint32, Goal: math.MaxUint32},
	} {
		got, err := Decode(Encode(r))
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%+v reads back as %+v: %v", r, got, err)
		}
	}
}

func TestDecodedSharesNoMemory(t *testing.T) {
	for _, e := range examples {
		b := e.bytes(t)
		if _, ok := e.value.(*Bundle); ok {
			b = sealBundle(b)
		}
		var got visitable
		var err error
		if _, ok := e.value.(*Bundle); ok {
			got, err = DecodeBundle(b)
		} else {
			got, err = decoded(e.value, b)
		}
		if err != nil {
			t.Fatal(err)
		}
		clear(b)
		if !bytes.Equal(encoding(got), e.bytes(t)) {
			t.Errorf("%s changed with the bytes it was read from", e.name())
		}
	}
}

// A length that only claims to be large must not make the reader allocate for it.
func TestHostileLengthsCostNothing(t *testing.T) {
	const n = 1 << 20
	for name, head := range map[string]string{
		"coordinators": "01 01 00 00 808040",
		"approved":     "01 13 00 00 808040",
		"accepted":     "01 07 00 00 00 <aa> <aa> 00 808040",
		"variants":     "01 0c 00 00 00 00 808040",
	} {
		b := append(example{want: head}.bytes(t), bytes.Repeat([]byte{0xff}, n)...)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := Decode(b); err == nil {
			t.Fatalf("%s: read", name)
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 1<<18 {
			t.Errorf("%d bytes that claim %d %s make the reader allocate %d", len(b), n, name, got)
		}
	}
}

func TestKnownReason(t *testing.T) {
	for _, r := range []string{ReasonDecrypt, ReasonEncoding, ReasonSignature, ReasonReplay, ReasonShape, ReasonEquivocation, ReasonTokenReuse} {
		if !KnownReason(r) {
			t.Errorf("%q is not known", r)
		}
	}
	if KnownReason("") || KnownReason("bored") {
		t.Error("an unknown reason is known")
	}
}

func TestKindsAreNamed(t *testing.T) {
	if got := KindGenesis.String() + ", " + KindJobEnded.String() + ", " + Kind(0).String() + ", " + Kind(99).String(); got != "genesis, job ended, kind 0, kind 99" {
		t.Error(got)
	}
}

func FuzzDecode(f *testing.F) {
	for _, e := range examples {
		if _, ok := e.value.(Record); ok {
			f.Add(e.bytes(f))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := Decode(b); err == nil && !bytes.Equal(Encode(r), b) {
			t.Errorf("%x decodes to %+v, which is encoded otherwise", b, r)
		}
	})
}

// fuzzLike fuzzes the decoder of values like one.
func fuzzLike(f *testing.F, like visitable) {
	for _, e := range examples {
		if reflect.TypeOf(e.value) == reflect.TypeOf(like) {
			f.Add(e.bytes(f))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, err := decoded(like, b); err == nil && !bytes.Equal(encoding(v), b) {
			t.Errorf("%x decodes to %+v, which is encoded otherwise", b, v)
		}
	})
}

func FuzzDecodeReceipt(f *testing.F) { fuzzLike(f, &Receipt{}) }
func FuzzDecodeRefusal(f *testing.F) { fuzzLike(f, &Refusal{}) }
func FuzzDecodeHead(f *testing.F)    { fuzzLike(f, &Head{}) }
func FuzzDecodeRoster(f *testing.F)  { fuzzLike(f, &Roster{}) }
func FuzzDecodeProof(f *testing.F)   { fuzzLike(f, &Proof{}) }
func FuzzDecodeBundle(f *testing.F)  { fuzzLike(f, &Bundle{}) }
