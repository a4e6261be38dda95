package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"choir.example/privacy/seal"
)

func TestFingerprintDecides(t *testing.T) {
	f := found(t, 1, "a", "b", "c")
	file := f.bundle(f.story()).Encode()
	for name, c := range map[string]struct {
		fingerprint string
		ok, self    bool
		want        string
	}{
		"the root's":            {f.root.Fingerprint(), true, false, f.root.Fingerprint()},
		"none":                  {"", false, true, "self-consistent only: no fingerprint was given; this bundle's root is " + f.root.Fingerprint()},
		"another's":             {found(t, 2, "a").root.Fingerprint(), false, false, "the bundle's root is " + f.root.Fingerprint() + ", not "},
		"the beginning of ours": {f.root.Fingerprint()[:63], false, false, "the bundle's root is "},
	} {
		r := Verify(file, c.fingerprint, noon)
		if r.OK != c.ok || r.Self != c.self || len(r.Checks) != 5 || r.Checks[1].Name != "root" || !strings.HasPrefix(r.Checks[1].Detail, c.want) {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// A bundle that is forged whole, down to a root of its own with the same names, agrees with itself. Only the
// fingerprint tells it from ours.
func TestBundleForgedWholeIsFound(t *testing.T) {
	f, forger := found(t, 1, "a", "b", "c"), found(t, 2, "a", "b", "c")
	forged := forger.bundle(forger.story())
	if r := Verify(forged.Encode(), "", noon); !r.Self || r.OK {
		t.Errorf("without a fingerprint: %+v", r)
	}
	if names, details := failed(f.verify(forged)); !slices.Equal(names, []string{"root"}) {
		t.Errorf("failed are %v: %s", names, details)
	}
	// Put under our root certificate, nothing of it holds together.
	forged.Root = f.root.Certificate().Raw
	if names, details := failed(f.verify(forged)); !slices.Equal(names, []string{"signatures"}) {
		t.Errorf("under our root: failed are %v: %s", names, details)
	}
	// With our genesis too, its signatures are not the founders'.
	records := append(f.story()[:1], forger.story()[1:]...)
	forged.Records = encoded(records)
	forged.Head = forger.head(forged.Records, forger.names...)
	if names, _ := failed(f.verify(forged)); !slices.Contains(names, "signatures") || !slices.Contains(names, "history") {
		t.Errorf("under our genesis: failed are %v", names)
	}
}

// What is wrong with the head or its signatures is found by the check of the signatures alone.
func TestSignatures(t *testing.T) {
	three, four := found(t, 1, "a", "b", "c"), found(t, 3, "a", "b", "c", "d")
	resign := func(f *federation, b *Bundle, i int, by string, domain string, message []byte) {
		b.Head.Signatures[i].Signature = seal.Sign(f.keys[by], domain, message)
	}
	for _, c := range []struct {
		name    string
		f       *federation
		signers []string
		change  func(f *federation, b *Bundle)
		want    string // "" if the bundle verifies
	}{
		{"all of three", three, []string{"a", "b", "c"}, nil, ""},
		{"two of three", three, []string{"a", "c"}, nil, ""},
		{"one of three", three, []string{"b"}, nil, "1 of 3 coordinators signed, a majority is 2"},
		{"three of four", four, []string{"a", "b", "d"}, nil, ""},
		{"half of four", four, []string{"a", "b"}, nil, "2 of 4 coordinators signed, a majority is 3"},
		{"nobody", three, []string{"a"}, func(_ *federation, b *Bundle) { b.Head.Signatures, b.Chains = nil, nil }, "0 of 3 coordinators signed, a majority is 2"},
		{"one counted twice", three, []string{"a"}, func(_ *federation, b *Bundle) {
			b.Head.Signatures, b.Chains = append(b.Head.Signatures, b.Head.Signatures[0]), append(b.Chains, b.Chains[0])
		}, "signers are not in order, or one signed twice"},
		{"one in the name of another", three, []string{"a", "b"}, func(f *federation, b *Bundle) {
			resign(f, b, 1, "a", DomainHead, b.Head.Message())
		}, "signature of b: signature does not verify"},
		{"one in the name of another with its own certificate", three, []string{"a", "b"}, func(f *federation, b *Bundle) {
			resign(f, b, 1, "a", DomainHead, b.Head.Message())
			b.Chains[1].Certificates = b.Chains[0].Certificates
		}, "signature of b: its certificate is not that in the records"},
		{"one with the chain of another", three, []string{"a", "b"}, func(_ *federation, b *Bundle) { b.Chains[1] = b.Chains[0] }, "signature of b: its certificate is not that in the records"},
		{"one with its chain under another name", three, []string{"a", "b"}, func(_ *federation, b *Bundle) { b.Chains[1].Name = "c" }, "signature of b: its certificate is not that in the records"},
		{"out of order", three, []string{"a", "b"}, func(_ *federation, b *Bundle) {
			slices.Reverse(b.Head.Signatures)
			slices.Reverse(b.Chains)
		}, "signers are not in order, or one signed twice"},
		{"a stranger that the root certified later", three, []string{"a", "b"}, func(f *federation, b *Bundle) {
			f.keys["x"] = f.key()
			b.Head.Signatures = append(b.Head.Signatures, Signature{Signer: "x"})
			resign(f, b, 2, "x", DomainHead, b.Head.Message())
			b.Chains = append(b.Chains, Chain{"x", f.certify(seal.RoleCoordinator, "x", f.keys["x"], month)})
		}, "signature of x: it is not by a coordinator as of the head"},
		{"a new certificate for a founder", three, []string{"a", "b"}, func(f *federation, b *Bundle) {
			b.Chains[1].Certificates = f.certify(seal.RoleCoordinator, "b", f.keys["b"], 2*month)
		}, "signature of b: its certificate is not that in the records"},
		{"a chain too many", three, []string{"a", "b"}, func(f *federation, b *Bundle) {
			b.Chains = append(b.Chains, Chain{"c", f.genesis.Coordinators[2].Chain})
		}, "3 chains for 2 signatures"},
		{"a chain too few", three, []string{"a", "b"}, func(_ *federation, b *Bundle) { b.Chains = b.Chains[:1] }, "1 chains for 2 signatures"},
		{"of another domain", three, []string{"a", "b"}, func(f *federation, b *Bundle) { resign(f, b, 0, "a", DomainReceipt, b.Head.Message()) }, "signature of a: signature does not verify"},
		{"of an older head", three, []string{"a", "b"}, func(f *federation, b *Bundle) {
			resign(f, b, 0, "a", DomainHead, f.head(b.Records[:9]).Message())
		}, "signature of a: signature does not verify"},
		{"empty", three, []string{"a", "b"}, func(_ *federation, b *Bundle) { b.Head.Signatures[0].Signature = nil }, "signature of a: signature does not verify"},
		{"of another cluster", three, []string{"a", "b"}, func(f *federation, b *Bundle) {
			b.Head.Cluster = "stall"
			resign(f, b, 0, "a", DomainHead, b.Head.Message())
			resign(f, b, 1, "b", DomainHead, b.Head.Message())
		}, "genesis, head and root certificate do not name one federation"},
	} {
		b := c.f.bundle(c.f.story(), c.signers...)
		if c.change != nil {
			c.change(c.f, b)
		}
		names, details := failed(c.f.verify(b))
		if c.want == "" && len(names) > 0 || c.want != "" && (!slices.Equal(names, []string{"signatures"}) || details != c.want) {
			t.Errorf("%s: failed are %v: %s; want %q", c.name, names, details, c.want)
		}
	}
}

// Signers' certificates must be valid when the bundle is verified: heads bear no time of their own.
func TestSignersMustBeValidNow(t *testing.T) {
	f := found(t, 1, "a", "b", "c")
	f.genesis.Coordinators[1].Chain = f.certify(seal.RoleCoordinator, "b", f.keys["b"], time.Hour)
	story := f.story()
	for _, c := range []struct {
		at      time.Time
		signers []string
		want    string
	}{
		{noon, []string{"a", "b"}, ""},
		{noon.Add(time.Hour), []string{"a", "b"}, ""},
		{noon.Add(time.Hour + time.Second), []string{"a", "b"}, "signature of b: b, valid from 2026-03-01 11:55:00 to 2026-03-01 13:00:00: expired or not valid yet"},
		{noon.Add(time.Hour + time.Second), []string{"a", "c"}, ""}, // a founder that did not sign may have expired
		{noon.Add(month + time.Second), []string{"a", "c"}, "signature of a: a, valid from"},
		{noon.Add(-time.Hour), []string{"a", "c"}, "signature of a: root: shop, valid from"},
	} {
		names, details := failed(Verify(f.bundle(story, c.signers...).Encode(), f.root.Fingerprint(), c.at))
		if c.want == "" && len(names) > 0 || c.want != "" && (!slices.Equal(names, []string{"signatures"}) || !strings.HasPrefix(details, c.want)) {
			t.Errorf("signed by %v, verified at %v: failed are %v: %s; want %q", c.signers, c.at, names, details, c.want)
		}
	}
}

// Records that are not those of the signed head are found by the tree; with a tree made anew, by the signatures.
func TestRecordsAreThoseThatWereSigned(t *testing.T) {
	f := found(t, 1, "a", "b", "c")
	refused := &Incident{"j", 2, 1, "n", ReasonShape, nil, nil}
	for name, change := range map[string]func(s *tale){ // to a history that is lawful too
		"dropped":   func(s *tale) { s.drop(nth[*Incident](s, 1)) },
		"inserted":  func(s *tale) { s.insertAfter(nth[*RoundClosed](s, 2), refused) },
		"appended":  func(s *tale) { s.add(refused) },
		"cut off":   func(s *tale) { s.records = s.records[:10] },
		"changed":   func(s *tale) { nth[*Incident](s, 1).Reason = ReasonReplay },
		"reordered": func(s *tale) { s.records[1], s.records[2] = s.records[2], s.records[1] },
	} {
		b := f.bundle(f.story())
		s := &tale{f.story()}
		s.records[1], s.records[2], s.records[3] = mustDecode(b.Records[1]), mustDecode(b.Records[2]), mustDecode(b.Records[3])
		change(s)
		b.Records = encoded(s.records)
		if names, details := failed(f.verify(b)); !slices.Equal(names, []string{"tree"}) {
			t.Errorf("%s under the old head: failed are %v: %s", name, names, details)
		}
		signatures := b.Head.Signatures
		b.Head = f.head(b.Records)
		b.Head.Signatures = signatures
		if names, details := failed(f.verify(b)); !slices.Equal(names, []string{"signatures"}) {
			t.Errorf("%s under a new head with old signatures: failed are %v: %s", name, names, details)
		}
	}
}

// A head that a majority signed must be that of the records in size and root.
func TestHeadIsThatOfTheRecords(t *testing.T) {
	f := found(t, 1, "a", "b", "c")
	for want, change := range map[string]func(h *Head){
		"the head covers ":                        func(h *Head) { h.Size++ },
		"the records do not give the head's root": func(h *Head) { h.Root[0] ^= 1 },
	} {
		b := f.bundle(f.story())
		change(&b.Head)
		for i, name := range f.names {
			b.Head.Signatures[i].Signature = seal.Sign(f.keys[name], DomainHead, b.Head.Message())
		}
		if names, details := failed(f.verify(b)); !slices.Equal(names, []string{"tree"}) || !strings.HasPrefix(details, want) {
			t.Errorf("failed are %v: %s; want %q", names, details, want)
		}
	}
}

func mustDecode(b []byte) Record {
	r, err := Decode(b)
	if err != nil {
		panic(err)
	}
	return r
}

// repaired is a damaged bundle with a checksum that matches, as a forger would write it.
func repaired(file []byte) []byte {
	return sealBundle(file[len(bundleMagic) : len(file)-32])
}

// Every single bit counts, also where a forger computes the checksum anew.
func TestEveryFlippedBitOfASmallBundleIsFound(t *testing.T) {
	t.Parallel()
	f := found(t, 1, "a")
	file := f.bundle([]Record{f.genesis, f.epochs[0]}).Encode()
	for bit := range 8 * len(file) {
		checkFlip(t, f, file, bit)
	}
}

// Of a whole story, one bit of each byte.
func TestFlippedBitInAnyByteIsFound(t *testing.T) {
	t.Parallel()
	const seed = 1
	rng := rand.New(rand.NewPCG(seed, 0))
	f := found(t, 1, "a", "b", "c")
	file := f.bundle(f.story()).Encode()
	for i := range file {
		checkFlip(t, f, file, 8*i+rng.IntN(8))
	}
}

func checkFlip(t *testing.T, f *federation, file []byte, bit int) {
	t.Helper()
	damaged := bytes.Clone(file)
	damaged[bit/8] ^= 1 << (bit % 8)
	if r := Verify(damaged, f.root.Fingerprint(), noon); r.OK || len(r.Checks) != 1 {
		t.Fatalf("bit %d of %d bytes flipped: %+v", bit, len(file), r)
	}
	if bit/8 < len(bundleMagic) || bit/8 >= len(file)-32 {
		return // the first line and the checksum itself
	}
	if r := Verify(repaired(damaged), f.root.Fingerprint(), noon); r.OK {
		t.Fatalf("bit %d of %d bytes flipped and the checksum made anew: %+v", bit, len(file), r)
	}
}

func TestEveryTruncationIsFound(t *testing.T) {
	f := found(t, 1, "a", "b", "c")
	file := f.bundle(f.story()).Encode()
	for n := range file {
		if r := Verify(file[:n], f.root.Fingerprint(), noon); r.OK || len(r.Checks) != 1 {
			t.Fatalf("cut to %d of %d bytes: %+v", n, len(file), r)
		}
		if n < len(bundleMagic)+32 || n == len(file)-32 {
			continue
		}
		if r := Verify(sealBundle(file[len(bundleMagic):n]), f.root.Fingerprint(), noon); r.OK || len(r.Checks) != 1 {
			t.Fatalf("cut to %d of %d bytes and the checksum made anew: %+v", n, len(file), r)
		}
	}
}

func TestAppendedByteIsFound(t *testing.T) {
	f := found(t, 1, "a", "b", "c")
	file := f.bundle(f.story()).Encode()
	body := file[len(bundleMagic) : len(file)-32]
	for extra := range 256 {
		for name, longer := range map[string][]byte{
			"behind":                      append(bytes.Clone(file), byte(extra)),
			"before":                      append([]byte{byte(extra)}, file...),
			"inside, the checksum anew":   sealBundle(append(bytes.Clone(body), byte(extra))),
			"in front, the checksum anew": sealBundle(append([]byte{byte(extra)}, body...)),
		} {
			if r := Verify(longer, f.root.Fingerprint(), noon); r.OK || len(r.Checks) != 1 {
				t.Fatalf("byte %d %s: %+v", extra, name, r)
			}
		}
	}
}

func TestWhatIsNoBundle(t *testing.T) {
	for name, c := range map[string]struct{ file, want string }{
		"empty":            {"", "it is not a bundle, or is cut"},
		"text":             {strings.Repeat("hello ", 20), "it is not a bundle, or is cut"},
		"first line alone": {bundleMagic, "it is not a bundle, or is cut"},
		"another version":  {"choir-bundle-2\n" + strings.Repeat("x", 64), "it is not a bundle, or is cut"},
		"damaged":          {bundleMagic + strings.Repeat("x", 64), "its checksum does not match: it is damaged or cut"},
		"nothing inside":   {string(sealBundle(nil)), "decode bundle: not a canonical encoding"},
	} {
		r := Verify([]byte(c.file), "", noon)
		if names, details := failed(r); !slices.Equal(names, []string{"format"}) || !strings.Contains(details, c.want) || r.OK || r.Self {
			t.Errorf("%s: failed are %v: %s", name, names, details)
		}
	}
}

// Who makes a bundle chooses the names in it. They must not write on the terminal of who verifies it.
func TestReportHoldsPrintableTextOnly(t *testing.T) {
	f := found(t, 1, "a", "b", "c")
	s := &tale{f.story()}
	nth[*Enrolled](s, 0).Token = "\x1b[1A\x1b[2Kok      history: all is well\n\u202e"
	for _, c := range f.verify(f.bundle(s.records)).Checks {
		if strings.ContainsAny(c.Detail, "\x1b\n\u202e") {
			t.Errorf("%s: %q", c.Name, c.Detail)
		}
		if c.Name == "history" && !strings.Contains(c.Detail, "[2Kok      history: all is well") {
			t.Errorf("what is printable is lost: %q", c.Detail)
		}
	}
}

func TestBundleListsItsRecords(t *testing.T) {
	f := found(t, 1, "a")
	b := f.bundle(f.story())
	got, err := b.Decoded()
	if err != nil || fmt.Sprint(encoded(got)) != fmt.Sprint(b.Records) {
		t.Errorf("%d records: %v", len(got), err)
	}
	b.Records[3] = []byte{1, 99}
	if _, err := b.Decoded(); err == nil || !strings.HasPrefix(err.Error(), "record 3: ") {
		t.Error(err)
	}
}

func BenchmarkVerify(b *testing.B) {
	f := found(b, 1, "a", "b", "c")
	file := f.bundle(f.story()).Encode()
	b.SetBytes(int64(len(file)))
	for b.Loop() {
		if r := Verify(file, f.root.Fingerprint(), noon); !r.OK {
			b.Fatal(r)
		}
	}
}

// failing is a file of which one operation fails.
type failing struct {
	io.ReadSeeker
	before int // operations that succeed before
}

func (f *failing) Read(b []byte) (int, error) {
	if f.before--; f.before == -1 {
		return 0, io.ErrClosedPipe
	}
	return f.ReadSeeker.Read(b)
}

func (f *failing) Seek(offset int64, whence int) (int64, error) {
	if f.before--; f.before == -1 {
		return 0, io.ErrClosedPipe
	}
	return f.ReadSeeker.Seek(offset, whence)
}

func TestVerifyFile(t *testing.T) {
	f := found(t, 1, "a", "b", "c")
	file := f.bundle(f.story()).Encode()
	if r, err := VerifyFile(bytes.NewReader(file), f.root.Fingerprint(), noon); err != nil || !r.OK {
		t.Errorf("%+v, %v", r, err)
	}
	for name, bad := range map[string][]byte{"empty": nil, "cut": file[:len(file)-1], "no bundle": bytes.Repeat([]byte{1}, 1000)} {
		r, err := VerifyFile(bytes.NewReader(bad), f.root.Fingerprint(), noon)
		if names, _ := failed(r); err != nil || r.OK || !slices.Equal(names, []string{"format"}) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	const many = 1 << 20
	whole := &failing{bytes.NewReader(file), many}
	if _, err := VerifyFile(whole, f.root.Fingerprint(), noon); err != nil {
		t.Fatal(err)
	}
	for before := range many - whole.before { // whichever fails
		r, err := VerifyFile(&failing{bytes.NewReader(file), before}, f.root.Fingerprint(), noon)
		if r.OK || !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("after %d operations: %+v, %v", before, r, err)
		}
	}
}
