package node

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"choir.example/internal/blob"
	"choir.example/model"
	"choir.example/model/data"
)

// toyModel is a model of the toy schema whose parameters follow from a seed.
func toyModel(t testing.TB, name string, seed uint64) *model.Model {
	t.Helper()
	return modelOf(t, toySchema(t), name, seed)
}

func modelOf(t testing.TB, schema *data.Schema, name string, seed uint64) *model.Model {
	t.Helper()
	rows := []data.Row{{20, 100, 0, 1, 1}, {40, 5000, 1, 0, 0}, {60, 900, 2, 1, 1}, {33, 70, 0, 0, 0}}
	stats, err := data.NewStatistics(schema, data.Collect(schema, rows))
	if err != nil {
		t.Fatal(err)
	}
	network, err := model.MLP(schema.Features(), 4).Compile()
	if err != nil {
		t.Fatal(err)
	}
	return &model.Model{Name: name, Variant: "float32", Network: network, Schema: schema, Statistics: stats, Params: network.Initial(seed)}
}

// encoded is the model's file and id.
func encoded(t testing.TB, m *model.Model) (body []byte, id [32]byte) {
	t.Helper()
	body, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return body, blob.ID(body)
}

// bareServer has no port.
func bareServer(t testing.TB) *server {
	s := &server{deps: newParty(t, "test").deps(), memory: newMemory(), metrics: newMetrics(), over: map[string]uint64{}}
	s.current.Store(&map[string]*served{})
	return s
}

// toyServer serves the toy model of seed 1 as version 7.
func toyServer(t testing.TB) (*server, *model.Model) {
	t.Helper()
	s, m := bareServer(t), toyModel(t, "toy", 1)
	_, id := encoded(t, m)
	s.swap(m, 7, id)
	return s, m
}

// ask sends a request to a handler as a caller on this machine would.
func ask(h http.Handler, method, path, body string, change func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://localhost:8080"+path, strings.NewReader(body))
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
	}
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

const inferPath = "/v2/models/toy/infer"

// inferBody is a request by the schema's names for rows of the toy schema.
const byNames = `{"id":"mine","inputs":[
	{"name":"age","datatype":"INT32","shape":[2],"data":[30,null]},
	{"name":"income","datatype":"FP64","shape":[2,1],"data":[100.5,20]},
	{"name":"colour","datatype":"BYTES","shape":[2],"data":["red","blue"]},
	{"name":"member","datatype":"BOOL","shape":[2],"data":[true,false]}]}`

// predicted computes what a model answers, without the server.
func predicted(m *model.Model, rows []data.Row) []float64 {
	x, _ := m.Statistics.Matrix(rows)
	logits := make([]float32, len(rows))
	m.Predictor().Predict(x, logits)
	var out []float64
	for _, z := range logits {
		out = append(out, model.Probability(z))
	}
	return out
}

// answers reads a good reply.
func answers(t testing.TB, w *httptest.ResponseRecorder) wireReply {
	t.Helper()
	var reply wireReply
	if err := json.Unmarshal(w.Body.Bytes(), &reply); w.Code != http.StatusOK || err != nil || len(reply.Outputs) != 1 {
		t.Fatalf("%d %s (%v)", w.Code, w.Body, err)
	}
	return reply
}

// A prediction is what the model says, by names as by tensor, with version, digest and an id of its own.
func TestInferAnswersWhatTheModelSays(t *testing.T) {
	s, m := toyServer(t)
	rows := []data.Row{{30, 100.5, 0, 1, 0}, {math.NaN(), 20, 2, 0, 0}}
	want := predicted(m, rows)
	_, id := encoded(t, m)
	reply := answers(t, ask(s.handler(), "POST", inferPath, byNames, nil))
	out := reply.Outputs[0]
	if !slices.Equal(out.Data, want) || out.Name != "probability" || out.Datatype != "FP64" || !slices.Equal(out.Shape, []int{2}) {
		t.Errorf("answered %+v, want %v", out, want)
	}
	if reply.ModelName != "toy" || reply.ModelVersion != "7" || reply.ID != "mine" ||
		reply.Parameters["digest"] != hex.EncodeToString(id[:]) || reply.Parameters["variant"] != "float32" {
		t.Errorf("reply is %+v", reply)
	}

	x, _ := m.Statistics.Matrix(rows)
	tensor, err := json.Marshal(map[string]any{"inputs": []map[string]any{{"name": "features", "datatype": "FP32", "shape": []int{2, 6}, "data": x}}})
	if err != nil {
		t.Fatal(err)
	}
	again := answers(t, ask(s.handler(), "POST", inferPath, string(tensor), nil))
	if !slices.Equal(again.Outputs[0].Data, want) {
		t.Errorf("as a tensor: %v, want %v", again.Outputs[0].Data, want)
	}
	first, second := reply.Parameters["prediction_id"], again.Parameters["prediction_id"]
	if len(first) != 32 || len(second) != 32 || first == second {
		t.Errorf("prediction ids %q and %q", first, second)
	}
}

// one is a request with one input, beside the income, which is required.
func one(input string) string {
	return `{"inputs":[{"name":"income","datatype":"FP64","shape":[1],"data":[1]},` + input + `]}`
}

func TestInferRefuses(t *testing.T) {
	s, _ := toyServer(t)
	h := s.handler()
	six := "[1,2,3,4,5,6]"
	for name, c := range map[string]struct {
		body string
		code int
		say  string
	}{
		"empty":                    {``, 400, "body: it is empty, want a JSON object"},
		"no JSON":                  {`{"inputs":`, 400, "body: it ends in the middle"},
		"no object":                {`[1]`, 400, "body: array at byte 1, want an object"},
		"an object for inputs":     {`{"inputs":{}}`, 400, "body: inputs: object at byte 11, want an array"},
		"a number for a name":      {`{"inputs":[{"name":7}]}`, 400, "body: inputs.name: number at byte 20, want a string"},
		"inputs without a name":    {`{"inputs":[{}]}`, 400, "inputs[0]: name is missing"},
		"no data":                  {one(`{"name":"age","datatype":"FP64","shape":[1]}`), 400, "input age: data is empty, want 1 to 4096 rows"},
		"NaN":                      {one(`{"name":"age","datatype":"FP64","shape":[1],"data":[NaN]}`), 400, "body: invalid character 'N'"},
		"infinite":                 {one(`{"name":"age","datatype":"FP64","shape":[1],"data":[1e999]}`), 400, "body: inputs.data: number 1e999 at byte "},
		"text after the end":       {byNames + `{}`, 400, "text after the end"},
		"unknown field":            {`{"inputs":[],"rows":1}`, 400, `unknown field "rows"`},
		"unknown field inside":     {one(`{"name":"age","type":"FP64"}`), 400, `unknown field "type"`},
		"nested deep":              {`{"inputs":` + strings.Repeat("[", 20_000), 400, "body: "},
		"nested in data":           {one(`{"name":"age","datatype":"FP64","shape":[1],"data":[[1]]}`), 400, "input age: value 1 is neither number, string nor boolean"},
		"object in data":           {one(`{"name":"age","datatype":"FP64","shape":[1],"data":[{"a":1}]}`), 400, "neither number, string nor boolean"},
		"nested in parameters":     {`{"parameters":` + strings.Repeat("[", 20_000) + `}`, 400, "body: "},
		"no inputs":                {`{}`, 400, "inputs: none given"},
		"no rows":                  {`{"inputs":[{"name":"income","datatype":"FP64","shape":[0],"data":[]}]}`, 400, "want 1 to 4096 rows"},
		"too many rows":            {`{"inputs":[{"name":"income","datatype":"FP64","shape":[4097],"data":[0` + strings.Repeat(",0", 4096) + `]}]}`, 400, "want 1 to 4096 rows"},
		"unknown input":            {one(`{"name":"shoe","datatype":"FP64","shape":[1],"data":[44]}`), 400, "input shoe: the schema has no such column"},
		"required input missing":   {`{"inputs":[{"name":"age","datatype":"FP64","shape":[1],"data":[1]}]}`, 400, "input income: the value is missing"},
		"required value missing":   {`{"inputs":[{"name":"income","datatype":"FP64","shape":[2],"data":[1,null]}]}`, 400, "row 2: input income: the value is missing"},
		"given twice":              {one(`{"name":"income","datatype":"FP64","shape":[1],"data":[2]}`), 400, "input income: given twice"},
		"unknown datatype":         {one(`{"name":"age","datatype":"FLOAT","shape":[1],"data":[1]}`), 400, `input age: datatype "FLOAT", want`},
		"no datatype":              {one(`{"name":"age","shape":[1],"data":[1]}`), 400, `input age: datatype "", want`},
		"string as a number":       {one(`{"name":"age","datatype":"FP64","shape":[1],"data":["30"]}`), 400, "input age: value 1 is a string, datatype FP64 wants a number"},
		"number as a string":       {one(`{"name":"colour","datatype":"BYTES","shape":[1],"data":[1]}`), 400, "value 1 is a number, datatype BYTES wants a string"},
		"boolean as a number":      {one(`{"name":"age","datatype":"BOOL","shape":[1],"data":[true]}`), 400, "input age: a boolean for a numeric column"},
		"category not known":       {one(`{"name":"colour","datatype":"BYTES","shape":[1],"data":["violet"]}`), 400, "input colour: "},
		"out of range":             {one(`{"name":"age","datatype":"FP64","shape":[1],"data":[1e30]}`), 400, "input age: 1e+30 is outside [0, 120]"},
		"no shape":                 {one(`{"name":"age","datatype":"FP64","data":[1]}`), 400, "input age: shape [], want [1, 1]"},
		"another shape":            {one(`{"name":"age","datatype":"FP64","shape":[2],"data":[1]}`), 400, "input age: shape [2], want [1, 1]"},
		"another number of rows":   {one(`{"name":"age","datatype":"FP64","shape":[2],"data":[1,2]}`), 400, "input age: 2 values, but the first input has 1: one for each row"},
		"negative shape":           {one(`{"name":"age","datatype":"FP64","shape":[-1],"data":[1]}`), 400, "input age: shape [-1]"},
		"shape no integer":         {one(`{"name":"age","datatype":"FP64","shape":[1.5],"data":[1]}`), 400, "body: inputs.shape: number 1.5 at byte "},
		"shape that overflows":     {one(`{"name":"age","datatype":"FP64","shape":[9223372036854775807,2],"data":[1]}`), 400, "input age: shape"},
		"tensor of another type":   {tensorOf("INT32", "[1,6]", six), 400, `input features: datatype "INT32", want FP32`},
		"tensor transposed":        {tensorOf("FP32", "[6,1]", six), 400, "input features: shape [6 1], want [1, 6]"},
		"tensor flat":              {tensorOf("FP32", "[6]", six), 400, "input features: shape [6], want [1, 6]"},
		"tensor of another width":  {tensorOf("FP32", "[1,5]", "[1,2,3,4,5]"), 400, "input features: 5 values, want 6 for each row"},
		"tensor of a row and some": {tensorOf("FP32", "[1,6]", "[1,2,3,4,5,6,7]"), 400, "input features: 7 values, want 6 for each row"},
		"tensor with a hole":       {tensorOf("FP32", "[1,6]", "[1,2,3,4,5,null]"), 400, "input features: value 6 is not a number in ±16777216"},
		"tensor with a string":     {tensorOf("FP32", "[1,6]", `[1,2,3,4,5,"6"]`), 400, "value 6 is not a number"},
		"tensor beyond measure":    {tensorOf("FP32", "[1,6]", "[1e30,2,3,4,5,6]"), 400, "value 1 is not a number in ±16777216"},
		"tensor beside others":     {`{"inputs":[{"name":"features"},{"name":"age"}]}`, 400, "input features: given beside other inputs"},
		"huge":                     {`{"inputs":[` + strings.Repeat(" ", maxBody) + `]}`, 413, "body: it is larger than 8388608 bytes; send fewer rows"},
	} {
		t.Run(name, func(t *testing.T) {
			w := ask(h, "POST", inferPath, c.body, nil)
			var reply map[string]string
			if err := json.Unmarshal(w.Body.Bytes(), &reply); err != nil {
				t.Fatalf("%s: %v", w.Body, err)
			}
			if w.Code != c.code || !strings.Contains(reply["error"], c.say) || len(reply) != 1 {
				t.Errorf("%d %s, want %d and %q", w.Code, w.Body, c.code, c.say)
			}
			if words := regexp.MustCompile(`Go |interface|map\[|node\.|json: `).FindString(reply["error"]); words != "" {
				t.Errorf("%s speaks of the program: %q", w.Body, words)
			}
		})
	}
	if w := ask(h, "POST", inferPath, byNames, nil); w.Code != 200 {
		t.Errorf("after all that: %d %s", w.Code, w.Body)
	}
}

// A tensor of features is held against the tables of a model that reads ids: what has no row is refused by its place. By
// the schema's names such an id is none of the column's.
func TestInferRefusesIDsWithoutARow(t *testing.T) {
	schema, err := data.ParseSchema([]byte(`{"name":"offers","columns":[{"name":"user","kind":"id","min":1,"max":3},` +
		`{"name":"item","kind":"id","min":1,"max":2000000},{"name":"y","kind":"boolean"}],"label":"y","unit":"offer"}`))
	if err != nil {
		t.Fatal(err)
	}
	stats, err := data.NewStatistics(schema, data.Collect(schema, []data.Row{{1, 2, 0}}))
	if err != nil {
		t.Fatal(err)
	}
	network, err := model.RecommendMLP(4, 2_000_001, 2, 3, 1).Compile()
	if err != nil {
		t.Fatal(err)
	}
	m := &model.Model{Name: "toy", Variant: "float32", Network: network, Schema: schema, Statistics: stats, Params: network.Initial(1)}
	tensors, err := model.Quantise(network, m.Params)
	if err != nil {
		t.Fatal(err)
	}
	small := *m
	small.Variant, small.Params, small.Quantised = "int8", nil, tensors
	for _, m := range []*model.Model{m, &small} {
		s := bareServer(t)
		s.swap(m, 1, [32]byte{})
		reply := answers(t, ask(s.handler(), "POST", inferPath, tensorOf("FP32", "[2,2]", "[3,2000000,0,0]"), nil))
		if want := predicted(m, []data.Row{{3, 2_000_000, 0}}); reply.Outputs[0].Data[0] != want[0] {
			t.Errorf("%s: answered %v, want %v first", m.Variant, reply.Outputs[0].Data, want)
		}
		for body, want := range map[string]string{
			tensorOf("FP32", "[2,2]", "[1,2,4,2]"):                                   "input features: row 2: value 1 is 4, want an id, a whole number of 0 to 3",
			tensorOf("FP32", "[1,2]", "[1,2000001]"):                                 "input features: row 1: value 2 is 2000001, want an id, a whole number of 0 to 2000000",
			tensorOf("FP32", "[1,2]", "[-1,2]"):                                      "input features: row 1: value 1 is -1, want an id",
			tensorOf("FP32", "[1,2]", "[0.5,2]"):                                     "input features: row 1: value 1 is 0.5, want an id",
			tensorOf("FP32", "[1,2]", "[1e30,2]"):                                    "input features: value 1 is not a number in ±16777216",
			`{"inputs":[{"name":"user","datatype":"INT64","shape":[1],"data":[4]}]}`: "input user: 4 is outside [1, 3]",
		} {
			if w := ask(s.handler(), "POST", inferPath, body, nil); w.Code != 400 || !strings.Contains(w.Body.String(), want) {
				t.Errorf("%s: %s: %d %s, want %q", m.Variant, body, w.Code, w.Body, want)
			}
		}
	}
}

func tensorOf(datatype, shape, data string) string {
	return fmt.Sprintf(`{"inputs":[{"name":"features","datatype":%q,"shape":%s,"data":%s}]}`, datatype, shape, data)
}

func TestProtocolPaths(t *testing.T) {
	s, m := toyServer(t)
	_, id := encoded(t, m)
	h := s.handler()
	for _, c := range []struct {
		method, path string
		code         int
		say          string
	}{
		{"GET", "/v2/health/live", 200, `{"live":true}`},
		{"GET", "/v2/health/ready", 200, `{"ready":true}`},
		{"GET", "/v2/models/toy/ready", 200, `"ready":true`},
		{"GET", "/v2/models/toy", 200, `"versions":["7"]`},
		{"GET", "/v2/models/toy", 200, hex.EncodeToString(id[:])},
		{"GET", "/v2/models/toy", 200, `{"name":"colour","datatype":"BYTES","shape":[-1]}`},
		{"GET", "/v2/models/toy", 200, `{"name":"features","datatype":"FP32","shape":[-1,6]}`},
		{"GET", "/v2/models/tay", 404, `model \"tay\" is not here`},
		{"GET", "/v2/models/tay/ready", 404, "is not here"},
		{"POST", "/v2/models/tay/infer", 404, "is not here"},
		{"POST", "/v2/models//infer", 404, ""},
		{"GET", "/v2", 200, `{"extensions":[],"name":"choir","version":"`},
		{"GET", inferPath, 405, `{"error":"method GET: /v2/models/toy/infer takes POST"}`},
		{"PUT", inferPath, 405, `{"error":"method PUT: `},
		{"DELETE", "/v2/models/toy", 405, `{"error":"method DELETE: /v2/models/toy takes GET"}`},
		{"POST", "/v2/health/live", 405, `takes GET"}`},
		{"POST", "/v2", 405, `takes GET"}`},
		{"GET", "/", 404, `{"error":"path / is not known here; the server tells about itself at /v2"}`},
		{"PATCH", "/v3/models", 404, `{"error":"path /v3/models is not known here`},
		{"GET", "/v2/models/toy/../../../etc/passwd", 404, ""},
	} {
		w := ask(h, c.method, c.path, "", nil)
		if w.Code != c.code && w.Code != http.StatusTemporaryRedirect || !strings.Contains(w.Body.String(), c.say) {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.path, w.Code, w.Body, c.code, c.say)
		}
		if allow := w.Header().Get("Allow"); (allow == "") == (w.Code == http.StatusMethodNotAllowed) {
			t.Errorf("%s %s: %d with Allow %q", c.method, c.path, w.Code, allow)
		}
	}
}

// Before the first release the server lives and is not ready.
func TestNotReadyBeforeTheFirstRelease(t *testing.T) {
	h := bareServer(t).handler()
	for path, code := range map[string]int{"/v2/health/live": 200, "/v2/health/ready": 503, "/v2/models/toy": 404, "/v2/models/toy/ready": 404} {
		if w := ask(h, "GET", path, "", nil); w.Code != code {
			t.Errorf("%s: %d %s, want %d", path, w.Code, w.Body, code)
		}
	}
	if w := ask(h, "POST", inferPath, byNames, nil); w.Code != 404 || !strings.Contains(w.Body.String(), "is not here") {
		t.Errorf("infer: %d %s", w.Code, w.Body)
	}
}

// A web page must not reach the server: not under a name of its own, not with a form, not by a preflight.
func TestWebPagesAreKeptOut(t *testing.T) {
	s, _ := toyServer(t)
	h := s.handler()
	for host, code := range map[string]int{
		"localhost": 200, "localhost:8080": 200, "LocalHost:1": 200, "127.0.0.1": 200, "127.0.0.1:99": 200, "127.1.2.3:99": 200, "[::1]": 200, "[::1]:80": 200,
		"": 403, "evil.example": 403, "evil.example:8080": 403, "localhost.evil.example": 403, "127.0.0.1.evil.example:8080": 403,
		"192.168.1.7:8080": 403, "0.0.0.0:8080": 403, "[::]:8080": 403, "[::1": 403, "[127.0.0.1x": 403, "[localhostx": 403, "localhost:8080:1": 403,
		"2130706433": 403, "0x7f000001": 403, "127.1": 403, "localhost.": 403,
	} {
		for _, path := range []string{"/v2/health/live", "/v2/models/toy"} {
			w := ask(h, "GET", path, "", func(r *http.Request) { r.Host = host })
			if w.Code != code || code == 403 && !strings.Contains(w.Body.String(), "only loopback names are answered") {
				t.Errorf("host %q, %s: %d %s", host, path, w.Code, w.Body)
			}
		}
	}
	for kind, code := range map[string]int{
		"application/json": 200, "application/json; charset=utf-8": 200, "Application/JSON": 200,
		"": 415, "text/plain": 415, "application/x-www-form-urlencoded": 415, "multipart/form-data; boundary=x": 415, "application/jsonx": 415, "text/plain; a=application/json": 415, ";": 415,
	} {
		w := ask(h, "POST", inferPath, byNames, func(r *http.Request) { r.Header.Set("Content-Type", kind) })
		if w.Code != code || code == 415 && !strings.Contains(w.Body.String(), "Content-Type must be application/json") {
			t.Errorf("content type %q: %d %s", kind, w.Code, w.Body)
		}
	}
	for _, method := range []string{"OPTIONS", "POST", "GET"} {
		w := ask(h, method, inferPath, byNames, func(r *http.Request) {
			r.Header.Set("Origin", "https://evil.example")
			r.Header.Set("Access-Control-Request-Method", "POST")
			r.Header.Set("Access-Control-Request-Headers", "content-type")
			r.Header.Set("Access-Control-Request-Private-Network", "true")
		})
		for name := range w.Header() {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s is answered with %s", method, name)
			}
		}
		if method == "OPTIONS" && w.Code < 400 {
			t.Errorf("a preflight succeeds: %d", w.Code)
		}
	}
}

// What a caller sends stays between the two: it reaches no log.
func TestRequestsReachNoLog(t *testing.T) {
	p := newParty(t, "test")
	s := bareServer(t)
	s.deps = p.deps()
	m := toyModel(t, "toy", 1)
	s.swap(m, 1, [32]byte{})
	ask(s.handler(), "POST", inferPath, byNames, nil)
	ask(s.handler(), "POST", inferPath, one(`{"name":"age","datatype":"FP64","shape":[1],"data":[13579.25]}`), nil)
	if p.log.String() != "" {
		t.Errorf("logged: %s", p.log)
	}
}

// Eight callers ask while releases are swapped under them, each after its self-test, and some fail that: no request fails,
// and each answer is wholly of one good release.
func TestSwapUnderLoad(t *testing.T) {
	const swaps = 100
	p := newParty(t, "test")
	cfg := configIn(t.TempDir())
	cfg.HTTP = "127.0.0.1:0"
	s, err := newServer(cfg, p.deps(), nil, newMetrics())
	if err != nil {
		t.Fatal(err)
	}
	defer s.start()()
	type release struct {
		m      *model.Model
		id     [32]byte
		digest string
		says   []float64
	}
	// Many rows, so that most swaps fall into the middle of a request.
	const many = 200
	row := slices.Repeat([]data.Row{{30, 100.5, math.NaN(), math.NaN(), 0}}, many)
	body := fmt.Sprintf(`{"inputs":[{"name":"age","datatype":"FP64","shape":[%d],"data":[30%s]},{"name":"income","datatype":"FP64","shape":[%d],"data":[100.5%s]}]}`,
		many, strings.Repeat(",30", many-1), many, strings.Repeat(",100.5", many-1))
	releases := make([]release, swaps+1)
	for v := range releases {
		m := toyModel(t, "toy", uint64(v))
		_, id := encoded(t, m)
		releases[v] = release{m, id, hex.EncodeToString(id[:]), predicted(m, row)}
	}
	s.swap(releases[0].m, 0, releases[0].id)
	url := "http://" + s.listener.Addr().String() + inferPath
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	defer client.CloseIdleConnections()
	asked := make(chan int, 1000)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for last := 0; ; {
				select {
				case <-stop:
					return
				default:
				}
				reply, err := post(client, url, body)
				if err != nil {
					t.Error(err)
					return
				}
				var v int
				if _, err := fmt.Sscan(reply.ModelVersion, &v); err != nil || v < last {
					t.Errorf("version %q after %d", reply.ModelVersion, last)
					return
				}
				if r := releases[v]; reply.Parameters["digest"] != r.digest || !slices.Equal(reply.Outputs[0].Data, r.says) {
					t.Errorf("version %d answers with digest %s and %v", v, reply.Parameters["digest"], reply.Outputs[0].Data)
					return
				}
				last = v
				select {
				case asked <- v:
				default:
				}
			}
		})
	}
	seen := map[int]bool{}
	for v := 1; v <= swaps; v++ {
		seen[<-asked] = true
		if s.selfTest(wildModel(t)) == nil {
			t.Error("a release that answers no numbers passes its self-test")
		}
		if err := s.selfTest(releases[v].m); err != nil {
			t.Error(err)
		}
		s.swap(releases[v].m, uint64(v), releases[v].id)
	}
	close(stop)
	wg.Wait()
	if len(seen) < 2 {
		t.Errorf("only %d versions were seen", len(seen))
	}
}

func post(client *http.Client, url, body string) (*wireReply, error) {
	resp, err := client.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s (%v)", resp.Status, b, err)
	}
	var reply wireReply
	if err := json.Unmarshal(b, &reply); err != nil || len(reply.Outputs) != 1 {
		return nil, fmt.Errorf("%s: %v", b, err)
	}
	return &reply, nil
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p, dir := newParty(t, "test"), t.TempDir()
	_ = p.node(dir, nil, "c1").Close()
	cfg := configIn(dir)
	cfg.HTTP = l.Addr().String()
	_, err = New(cfg, p.deps())
	wantError(t, err, "listen for predictions on "+cfg.HTTP, "is the port in use?")
	cfg.HTTP = ""
	n, err := New(cfg, p.deps()) // the store was given back
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

// A node that ran gives its port back, and closing it afterwards is no error.
func TestServerEndsWithTheNode(t *testing.T) {
	p := newParty(t, "test")
	n := p.node(t.TempDir(), func(c *Config, _ *Deps) { c.HTTP = "127.0.0.1:0" }, "c1")
	address := n.Address()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	resp, err := http.Get("http://" + address + "/v2/health/live")
	if err != nil || resp.StatusCode != 200 {
		t.Errorf("live: %v, %v", resp, err)
	} else {
		resp.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the node does not stop")
	}
	if err := n.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatalf("the port was not given back: %v", err)
	}
	_ = l.Close()
}

func FuzzInfer(f *testing.F) {
	for _, body := range []string{byNames, tensorOf("FP32", "[1,6]", "[1,2,3,4,5,6]"), one(`{"name":"colour","datatype":"BYTES","shape":[1],"data":[null]}`), `{"inputs":[{}]}`, `{}`, ``} {
		f.Add([]byte(body))
	}
	s, _ := toyServer(f)
	h := s.handler()
	f.Fuzz(func(t *testing.T, body []byte) {
		w := ask(h, "POST", inferPath, string(body), nil)
		switch w.Code {
		case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
			var reply map[string]string
			if json.Unmarshal(w.Body.Bytes(), &reply) != nil || reply["error"] == "" {
				t.Errorf("refused without a word: %s", w.Body)
			}
		case http.StatusOK:
			for _, p := range answers(t, w).Outputs[0].Data {
				if !(p >= 0 && p <= 1) {
					t.Errorf("probability %v", p)
				}
			}
		default:
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}

// What the quick reading of requests takes is what encoding/json makes of it.
func FuzzDecodeInfer(f *testing.F) {
	_, shop := shopModel(f)
	for _, body := range []string{
		string(shop), byNames, tensorOf("FP32", "[1,6]", "[1,-2.5,0,0.0,5e3,6]"), `{"id":"","id":"x","inputs":[{"name":"a","name":"b"}]}`,
		`{"inputs":[{"data":[-0,01,1.,.5,tru,null]}]}`, `{"inputs":[{"shape":[1.0,2],"data":[]}]} `, `{"inputs":[{}]}x`, `{"INPUTS":[{"Name":"a"}]}`,
		`{"inputs":[{"data":[12345678901234567890123,1.7976931348623159]}],"id":"é"}`, "{\"inputs\"\t:\r\n[ {\"name\" : \"a\\u0062\"} ]}",
	} {
		f.Add([]byte(body))
	}
	if !new(quick).infer(string(shop)) {
		f.Error("a plain request is not read quickly")
	}
	q := new(quick)
	f.Fuzz(func(t *testing.T, body []byte) {
		q.clear() // what was read before leaves no trace
		if !q.infer(string(body)) {
			return
		}
		got := q.req
		var want inferRequest
		if err := decodeStrict(body, &want); err != nil {
			t.Fatalf("read quickly, but %v", err)
		}
		if fmt.Sprintf("%#v", got) != fmt.Sprintf("%#v", want) {
			t.Errorf("quickly %#v, want %#v", got, want)
		}
	})
}

// BenchmarkInfer is one prediction by names, in process: decode, standardise, predict, encode.
func BenchmarkInfer(b *testing.B) {
	s, _ := toyServer(b)
	h := s.handler()
	body := []byte(byNames)
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest("POST", "http://localhost"+inferPath, bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != 200 {
			b.Fatal(w.Body)
		}
	}
}

// BenchmarkPredict is the model alone, for one row.
func BenchmarkPredict(b *testing.B) {
	_, m := toyServer(b)
	x, _ := m.Statistics.Matrix([]data.Row{{30, 100.5, 0, 1, 0}})
	p, logits := m.Predictor(), make([]float32, 1)
	b.ReportAllocs()
	for b.Loop() {
		p.Predict(x, logits)
	}
}

// wireReply is an answer as a caller reads it.
type wireReply struct {
	ModelName    string            `json:"model_name"`
	ModelVersion string            `json:"model_version"`
	ID           string            `json:"id"`
	Parameters   map[string]string `json:"parameters"`
	Outputs      []struct {
		Name     string    `json:"name"`
		Datatype string    `json:"datatype"`
		Shape    []int     `json:"shape"`
		Data     []float64 `json:"data"`
	} `json:"outputs"`
}

// Answers are JSON whatever the caller and the model are called, and however small the probability.
func TestAnswersAreJSON(t *testing.T) {
	m := &served{model: &model.Model{Name: `a "b" ä` + "\n", Variant: "int8"}, version: 7, digest: "00ff"}
	for _, id := range []string{"", "plain", `"quoted\`, "\x00\xff<&> "} {
		a := inferReply{release: m, id: id, prediction: [16]byte{1, 2}, probabilities: []float64{1e-300, 0, .5, 1}}
		var got wireReply
		if err := decodeStrict(a.append(nil), &got); err != nil {
			t.Fatalf("id %q: %v", id, err)
		}
		want := strings.ToValidUTF8(id, "\ufffd")
		if got.ModelName != m.model.Name || got.ModelVersion != "7" || got.ID != want || got.Parameters["variant"] != "int8" ||
			got.Parameters["digest"] != "00ff" || got.Parameters["prediction_id"] != "01020000000000000000000000000000" ||
			!slices.Equal(got.Outputs[0].Data, a.probabilities) || !slices.Equal(got.Outputs[0].Shape, []int{4}) {
			t.Errorf("id %q: %+v", id, got)
		}
	}
}
