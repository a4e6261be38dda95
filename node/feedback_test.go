package node

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"choir.example/model"
	"choir.example/model/data"
)

const feedbackPath = "/v2/models/toy/feedback"

// answering is a server with a store of the toy schema, the toy model, and a token.
func answeringServer(t testing.TB) *server {
	t.Helper()
	s, _ := toyServer(t)
	s.store, s.token = toyStore(t, t.TempDir(), 0), "0123456789abcdef0123456789abcdef"
	return s
}

func (t token) show(r *http.Request) { r.Header.Set("Authorization", "Bearer "+string(t)) }

// predictionOf asks for a prediction and returns its id.
func predictionOf(t testing.TB, s *server, body string) string {
	t.Helper()
	return answers(t, ask(s.handler(), "POST", inferPath, body, nil)).Parameters["prediction_id"]
}

// The true outcome of a prediction becomes an example with the inputs that it was made from, once.
func TestFeedbackBecomesAnExample(t *testing.T) {
	s := answeringServer(t)
	id := predictionOf(t, s, byNames)
	w := ask(s.handler(), "POST", feedbackPath, fmt.Sprintf(`{"prediction_id":%q,"outcome":[true,"no"]}`, id), s.token.show)
	var taken FeedbackTaken
	if err := json.Unmarshal(w.Body.Bytes(), &taken); w.Code != 200 || err != nil || taken.Examples != 2 || taken.Model != "toy" {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	rows, err := s.store.Rows(Train)
	if want := "[[30 100.5 0 1 1] [NaN 20 2 0 0]]"; err != nil || fmt.Sprint(rows) != want {
		t.Errorf("the store holds %v, %v; want %s", rows, err, want)
	}
	w = ask(s.handler(), "POST", feedbackPath, fmt.Sprintf(`{"prediction_id":%q,"outcome":[true,true]}`, id), s.token.show)
	if w.Code != 409 || !strings.Contains(w.Body.String(), "known already") {
		t.Errorf("a second outcome: %d %s", w.Code, w.Body)
	}
	wantCount(t, s.store, Train, 2)
}

const otherID = "00112233445566778899aabbccddeeff"

func TestFeedbackRefuses(t *testing.T) {
	s := answeringServer(t)
	id := predictionOf(t, s, one(`{"name":"age","datatype":"INT32","shape":[1],"data":[30]}`))
	matrix := predictionOf(t, s, tensorOf("FP32", "[1,6]", "[1,2,3,4,5,6]"))
	inputs := `"inputs":[{"name":"income","datatype":"FP64","shape":[1],"data":[5]}]`
	for name, c := range map[string]struct {
		body string
		code int
		say  string
	}{
		"no JSON":               {`yes`, 400, "body: "},
		"unknown field":         {`{"prediction":"x"}`, 400, `unknown field "prediction"`},
		"no id":                 {`{"outcome":true}`, 400, `prediction_id: "", want the 32 hexadecimal digits`},
		"id cut":                {fmt.Sprintf(`{"prediction_id":%q,"outcome":true}`, id[:30]), 400, "prediction_id: "},
		"unknown id":            {fmt.Sprintf(`{"prediction_id":%q,"outcome":true}`, otherID), 404, "send its inputs along"},
		"no outcome":            {fmt.Sprintf(`{"prediction_id":%q}`, id), 400, "outcome: label y: the value is missing"},
		"outcome null":          {fmt.Sprintf(`{"prediction_id":%q,"outcome":null}`, id), 400, "outcome: label y: the value is missing"},
		"outcome no boolean":    {fmt.Sprintf(`{"prediction_id":%q,"outcome":"perhaps"}`, id), 400, "outcome: label y: "},
		"outcome out of range":  {fmt.Sprintf(`{"prediction_id":%q,"outcome":2}`, id), 400, "outcome: label y: "},
		"two outcomes":          {fmt.Sprintf(`{"prediction_id":%q,"outcome":[true,true]}`, id), 400, "outcome: 2 given for a prediction of 1 rows"},
		"made from a tensor":    {fmt.Sprintf(`{"prediction_id":%q,"outcome":true}`, matrix), 400, `made from the tensor "features"; send its inputs along`},
		"inputs that do not do": {fmt.Sprintf(`{"prediction_id":%q,"outcome":true,"inputs":[{"name":"shoe","datatype":"FP64","shape":[1],"data":[1]}]}`, otherID), 400, "input shoe: the schema has no such column"},
	} {
		w := ask(s.handler(), "POST", feedbackPath, c.body, s.token.show)
		if w.Code != c.code || !strings.Contains(w.Body.String(), strings.ReplaceAll(c.say, `"`, `\"`)) {
			t.Errorf("%s: %d %s, want %d %s", name, w.Code, w.Body, c.code, c.say)
		}
	}
	wantCount(t, s.store, Train, 0)
	w := ask(s.handler(), "POST", feedbackPath, fmt.Sprintf(`{"prediction_id":%q,"outcome":true,%s}`, otherID, inputs), s.token.show)
	if w.Code != 200 {
		t.Errorf("inputs sent along: %d %s", w.Code, w.Body)
	}
	wantCount(t, s.store, Train, 1)
	other := answeringServer(t)
	other.store = openTestStore(t, t.TempDir())
	w = ask(other.handler(), "POST", feedbackPath, fmt.Sprintf(`{"prediction_id":%q,"outcome":true}`, predictionOf(t, other, byNames)), other.token.show)
	if w.Code != 400 || !strings.Contains(w.Body.String(), "is for schema toy, which this node's data do not have") {
		t.Errorf("a store without the schema: %d %s", w.Code, w.Body)
	}
}

// Feedback needs the token on loopback, too; predictions do not.
func TestFeedbackNeedsTheToken(t *testing.T) {
	s := answeringServer(t)
	body := fmt.Sprintf(`{"prediction_id":%q,"outcome":[true,true]}`, predictionOf(t, s, byNames))
	for name, show := range map[string]string{"none": "", "wrong": "Bearer x", "empty": "Bearer ", "without Bearer": string(s.token), "longer": "Bearer " + string(s.token) + "0", "basic": "Basic " + string(s.token)} {
		w := ask(s.handler(), "POST", feedbackPath, body, func(r *http.Request) { r.Header.Set("Authorization", show) })
		if w.Code != 401 || !strings.Contains(w.Body.String(), TokenFile) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	wantCount(t, s.store, Train, 0)
	s.token = ""
	if w := ask(s.handler(), "POST", feedbackPath, body, token("").show); w.Code != 401 {
		t.Errorf("a server without a token takes an empty one: %d", w.Code)
	}
}

func TestTokenFileIsSecret(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, TokenFile)
	first, err := openToken(dir, rand.Reader)
	if err != nil || len(first) != 64 {
		t.Fatal(first, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if again, err := openToken(dir, rand.Reader); again != first || err != nil {
		t.Errorf("after a restart the token is another: %v", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = openToken(dir, rand.Reader)
	wantError(t, err, path, "may be read by others (mode 0644)")
	write(t, path, nil)
	_ = os.Chmod(path, 0o600)
	_, err = openToken(dir, rand.Reader)
	wantError(t, err, path, "0 characters, want at least 32; remove it")
}

// The latest 100,000 rows of 24 hours are remembered, and memory does not grow beyond.
func TestMemoryForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		id := func(i int) (id [16]byte) { copy(id[:], fmt.Sprint(i)); return id }
		for i := range 3 * memoryRows / 2 {
			m.remember(&prediction{id: id(i), count: 1, rows: []data.Row{nil}, at: time.Now()})
		}
		if m.find(id(memoryRows/2-1), time.Now()) != nil || m.find(id(memoryRows/2), time.Now()) == nil {
			t.Error("not the latest 100,000 are remembered")
		}
		m.remember(&prediction{id: id(-1), count: memoryRows - 1, at: time.Now()})
		if m.find(id(memoryRows*3/2-1), time.Now()) == nil || m.find(id(memoryRows*3/2-2), time.Now()) != nil {
			t.Error("a request of many rows does not count as many")
		}
		time.Sleep(memoryLife)
		if m.find(id(-1), time.Now()) == nil {
			t.Error("forgotten within 24 hours")
		}
		time.Sleep(time.Second)
		if m.find(id(-1), time.Now()) != nil || len(m.order) != 0 || m.rows != 0 || m.next != m.first || m.models[0].model != nil {
			t.Errorf("after 24 hours %d are left", len(m.order))
		}
		if want := 1 << 17; len(m.ring) > want {
			t.Errorf("the ring holds %d places, want at most %d", len(m.ring), want)
		}
	})
}

// What is remembered of each prediction is its own model and rows, however many came since and were forgotten.
func TestMemoryKeepsRows(t *testing.T) {
	m, now := newMemory(), time.Unix(1, 0)
	models := []*model.Model{{Name: "a"}, {Name: "b"}, {Name: "c"}}
	rows := func(i int) (out []data.Row) {
		for k := range i%4 + 1 {
			out = append(out, data.Row{float64(i), float64(k), float64(i * k)}[:2+i%2])
		}
		return out
	}
	id := func(i int) (id [16]byte) { copy(id[:], fmt.Sprint(i)); return id }
	const n = 60_000
	for i := range n {
		m.remember(&prediction{id: id(i), model: models[i*3/n], count: i%4 + 1, rows: rows(i), at: now})
	}
	seen := 0
	for i := range n {
		p := m.find(id(i), now)
		if p == nil {
			continue
		}
		seen += p.count
		if p.model != models[i*3/n] || fmt.Sprint(p.rows) != fmt.Sprint(rows(i)) {
			t.Fatalf("prediction %d: %s %v", i, p.model.Name, p.rows)
		}
	}
	if seen < memoryRows-4 || seen > memoryRows || m.find(id(n-1), now) == nil {
		t.Errorf("%d rows are remembered, want %d", seen, memoryRows)
	}
	if m.models[0].model != nil || len(m.blocks) > memoryRows*3/blockValues+2 {
		t.Errorf("a model nobody asked for is kept, or %d blocks are", len(m.blocks))
	}
}

// An example from feedback takes part in the next training.
func TestFeedbackIsLearntFrom(t *testing.T) {
	b := newBench(t, "node-01", 10, 4)
	before := bytesOf(b.do(b.task(nil)))
	s, _ := toyServer(t)
	s.store = b.store
	f := Feedback{PredictionID: predictionOf(t, s, one(`{"name":"age","datatype":"INT32","shape":[1],"data":[30]}`)), Outcome: true}
	if _, err := s.keepOutcome(f); err != nil {
		t.Fatal(err)
	}
	after := b.do(b.task(nil))
	if after.Weight != 11 || bytesOf(after) == before {
		t.Errorf("weight %d, want 11 and another update", after.Weight)
	}
}

// The owner gives feedback over the socket without a token.
func TestFeedbackOverTheSocket(t *testing.T) {
	p := newParty(t, "test")
	s := newShop().service()
	s.poll = hold
	p.coordinator("c1", s)
	n := p.node(t.TempDir(), func(c *Config, _ *Deps) { c.Control, c.HTTP = true, "127.0.0.1:0" }, "c1")
	if err := n.store.SetSchema(toySchema(t)); err != nil {
		t.Fatal(err)
	}
	n.serve.swap(toyModel(t, "toy", 1), 1, [32]byte{})
	c := running(t, n)
	id := predictionOf(t, n.serve, one(`{"name":"age","datatype":"INT32","shape":[1],"data":[30]}`))
	taken, err := c.Feedback(t.Context(), Feedback{PredictionID: id, Outcome: "yes"})
	if err != nil || taken.Examples != 1 {
		t.Errorf("%+v, %v", taken, err)
	}
	_, err = c.Feedback(t.Context(), Feedback{PredictionID: otherID, Outcome: "yes"})
	wantError(t, err, "is not remembered", "send its inputs along")
	wantCount(t, n.store, Train, 1)
}

// certificateFiles makes a self-signed certificate for the prediction server.
func certificateFiles(t *testing.T) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	body := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	write(t, cert, body)
	write(t, key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(body)
	return cert, key, pool
}

// Beyond loopback the server speaks TLS only, and answers nothing at all without the token.
func TestBeyondLoopback(t *testing.T) {
	cert, key, pool := certificateFiles(t)
	cfg := configIn(t.TempDir())
	cfg.HTTP, cfg.Certificate, cfg.Key = "0.0.0.0:0", cert, key
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	s, err := newServer(cfg, newParty(t, "test").deps(), nil, newMetrics())
	if err != nil {
		t.Fatal(err)
	}
	s.swap(toyModel(t, "toy", 1), 1, [32]byte{})
	defer s.start()()
	_, port, _ := net.SplitHostPort(s.listener.Addr().String())
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer client.CloseIdleConnections()
	for _, path := range []string{"/v2/health/live", "/v2/models/toy"} {
		for show, code := range map[token]int{"": 401, "wrong": 401, s.token: 200} {
			r, _ := http.NewRequest("GET", "https://127.0.0.1:"+port+path, nil)
			show.show(r)
			resp, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			if resp.Body.Close(); resp.StatusCode != code {
				t.Errorf("%s: %s, want %d", path, resp.Status, code)
			}
		}
	}
	if resp, err := http.Get("http://127.0.0.1:" + port + "/v2/health/live"); err == nil && resp.StatusCode == 200 {
		t.Error("it answers without TLS")
	}
	cfg.Key = cert
	_, err = newServer(cfg, newParty(t, "test").deps(), nil, newMetrics())
	wantError(t, err, "certificate and key of the prediction server")
}

func TestConfigOfServersAndHours(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		say    string
	}{
		"open without TLS":       {func(c *Config) { c.HTTP = "0.0.0.0:8080" }, "want a loopback address such as 127.0.0.1:8080, or a certificate and a key for TLS"},
		"every address":          {func(c *Config) { c.HTTP = ":8080" }, "want a loopback address"},
		"certificate alone":      {func(c *Config) { c.HTTP, c.Certificate = "0.0.0.0:8080", "x" }, "Certificate is given without a key"},
		"key alone":              {func(c *Config) { c.HTTP, c.Key = "0.0.0.0:8080", "x" }, "Key is given without a certificate"},
		"health beyond loopback": {func(c *Config) { c.Health = "0.0.0.0:9102" }, "Health is 0.0.0.0:9102, want a loopback address"},
		"health no address":      {func(c *Config) { c.Health = "9102" }, "Health is 9102, want"},
		"upper case":             {func(c *Config) { c.Name = "Node" }, `Name is "Node", want at most 63 of a-z`},
	} {
		cfg := configIn(t.TempDir())
		c.change(&cfg)
		if err := cfg.Validate(); err == nil {
			t.Errorf("%s: no error", name)
		} else {
			wantError(t, err, c.say)
		}
	}
	for _, bad := range []string{"22", "22-", "-6", "22-22", "24-6", "22-25", "a-b", "22-6h", "22 - 6", "22-6-7", "+1-6", "22.5-6"} {
		cfg := configIn(t.TempDir())
		cfg.Hours = bad
		wantError(t, cfg.Validate(), fmt.Sprintf("Hours is %q, want two different hours of the day", bad))
	}
	for text, in := range map[string]string{ // the hours in it, as letters: a is from 0 to 1 o'clock
		"22-6": "abcdefwx", "6-9": "ghi", "0-24": "abcdefghijklmnopqrstuvwx", "23-0": "x", "": "abcdefghijklmnopqrstuvwx",
	} {
		h, err := parseHours(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		for hour := range 24 {
			at := time.Date(2026, 1, 2, hour, 59, 59, 0, time.Local)
			if got := h.contains(at); got != strings.ContainsRune(in, rune('a'+hour)) {
				t.Errorf("%s at %d: %v", text, hour, got)
			}
		}
	}
}
