package simulate

import (
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"choir.example/fedavg"
	"choir.example/model"
	"choir.example/model/data"
	"choir.example/simulate/partition"
)

// written writes files to a new directory.
func written(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// idx makes the four files of an image set: images of side × side pixels in ten classes that take turns.
func idx(train, test, side int) map[string]string {
	files := map[string]string{}
	for part, n := range map[string]int{"train": train, "t10k": test} {
		var images, labels []byte
		for _, v := range []uint32{0x803, uint32(n), uint32(side), uint32(side)} {
			images = binary.BigEndian.AppendUint32(images, v)
		}
		for _, v := range []uint32{0x801, uint32(n)} {
			labels = binary.BigEndian.AppendUint32(labels, v)
		}
		for i := range n {
			image := make([]byte, side*side)
			copy(image, []byte{byte(i), byte(i % 10 * 25), 0, 255})
			images, labels = append(images, image...), append(labels, byte(i%10))
		}
		files[part+"-images-idx3-ubyte"], files[part+"-labels-idx1-ubyte"] = string(images), string(labels)
	}
	return files
}

const play = "Anne:\nBefore we proceed any further, hear me speak.\n\nBob:\nSpeak, speak, speak, speak.\n\nAnne:\nYou are all resolved.\n\nBob:\nno\n"

const visitSchema = `{"name": "v", "unit": "visit", "label": "buys", "ignore": ["store"], "columns": [
	{"name": "price", "kind": "numeric", "max": 99}, {"name": "device", "kind": "category", "categories": ["phone", "desk"]}, {"name": "buys", "kind": "boolean", "required": true}]}`

// visitRows are rows as CSV and as JSON lines: row i is of store i%3.
func visitRows(n int) (csv, jsonl string) {
	csv = "store,price,device,buys\n"
	for i := range n {
		device, value := "phone", `"phone"`
		if i%4 == 3 {
			device, value = "", "null"
		}
		csv += fmt.Sprintf("s%d,%d,%s,%d\n", i%3, i, device, i%2)
		jsonl += fmt.Sprintf(`{"store": "s%d", "price": %d, "device": %s, "buys": %v}`+"\n", i%3, i, value, i%2 == 1)
	}
	return csv, jsonl
}

// Every data set is read, has columns of its length, and trains with an architecture that fits it.
func TestDataSets(t *testing.T) {
	csv, jsonl := visitRows(90)
	own := written(t, map[string]string{"v.csv": csv, "v.jsonl": jsonl, "v.json": visitSchema})
	logistic := model.Architecture{Name: "logistic"}
	for _, c := range []struct {
		name    string
		s       DataSettings
		arch    model.Architecture
		columns string
		natural string
	}{
		{"shoppers", DataSettings{}, logistic, "", "region"},
		{"mnist", DataSettings{Name: "mnist", Path: written(t, idx(40, 20, 2))}, logistic, "", ""},
		{"banking77", DataSettings{Name: "banking77", Length: 16, Path: written(t, map[string]string{
			"train.csv": "text,category\nhow much,price\nhow long,time\nhow dear,price\n", "test.csv": "text,category\nhow far,time\n",
		})}, model.Architecture{Name: "text"}, "", ""},
		{"tinyshakespeare", DataSettings{Name: "tinyshakespeare", Length: 2, Path: written(t, map[string]string{"input.txt": play})}, model.Architecture{Layers: []model.LayerSpec{
			{Kind: "embedding", Rows: []int{29}, Dim: 4}, {Kind: "rnn", Units: 4, Sequence: true}, {Kind: "dense", Units: 29}}, Loss: "softmax"}, "role", "role"},
		{"online-retail", DataSettings{Name: "online-retail", Length: 3, Path: written(t, map[string]string{"purchases.csv": purchases(4)})},
			model.Architecture{Name: "recommend-lstm", Loss: "softmax"}, "country customer", "customer"},
		{"online-retail items", DataSettings{Name: "online-retail", Length: 3, Form: "items", Path: written(t, map[string]string{"purchases.csv": purchases(4)})},
			model.Architecture{Layers: []model.LayerSpec{{Kind: "embedding", Rows: []int{10}, Dim: 4}, {Kind: "flatten"}, {Kind: "dense", Units: 10}}, Loss: "softmax"}, "country customer", "customer"},
		{"fedprox-synthetic", DataSettings{Name: "fedprox-synthetic", Alpha: 1, Beta: 1}, logistic, "device", "device"},
		{"fedprox-synthetic file", DataSettings{Name: "fedprox-synthetic", Path: leafFile(t)}, logistic, "device", "device"},
		{"shop", DataSettings{Name: "shop", Users: 5, Examples: 300}, logistic, "category device discount favourite purchase source user", "user"},
		{"blobs", DataSettings{Name: "blobs", Examples: 100}, logistic, "", ""},
		{"rows", DataSettings{Path: own + "/v.csv", Schema: own + "/v.json", By: "store"}, logistic, "buys device store", "store"},
		{"rows in JSON", DataSettings{Name: "rows", Path: own + "/v.jsonl", Schema: own + "/v.json"}, logistic, "buys device", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := &Loader{}
			d, err := l.Load(c.s, 3)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(slices.Sorted(maps.Keys(d.Columns)), " "); c.columns != "" && got != c.columns || d.Natural != c.natural {
				t.Errorf("columns %s, natural %q", got, d.Natural)
			}
			if c.natural != "" && d.Columns[c.natural] == nil {
				t.Errorf("no column %s", c.natural)
			}
			x := Experiment{
				Name: "any", Data: c.s, Architecture: c.arch, Rounds: 1, Partition: partition.Settings{Nodes: 2},
				Local: fedavg.LocalSettings{LearningRate: .001},
			}
			if r, err := Run(t.Context(), x, RunConfig{Seed: 3, Loader: l}); err != nil || r.Rounds != 1 {
				t.Errorf("%v", err)
			}
		})
	}
}

// purchases are those of so many customers, of six items each from nine.
func purchases(customers int) string {
	text := "customer,country,invoice,minute,item\n"
	for c := range customers {
		for i := range 6 {
			text += fmt.Sprintf("%d,%d,0,%d,%d\n", c, c%2, i, (c+i)%9)
		}
	}
	return text
}

func leafFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f.json.gz")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(f)
	_, err = z.Write([]byte(`{"train": {"users": ["a", "b"], "num_samples": [2, 1], "user_data": {"a": {"x": [[1, 2], [3, 4]], "y": [0, 1]}, "b": {"x": [[5, 6]], "y": [1]}}},
		"test": {"users": ["b"], "num_samples": [1], "user_data": {"b": {"x": [[1, 1]], "y": [1]}}}}`))
	if err != nil || z.Close() != nil || f.Close() != nil {
		t.Fatal(err)
	}
	return path
}

// A row's owner follows it through the division into parts: prices are 0 to 89 in the file, and price i is of store i%3.
func TestOwnersFollowRows(t *testing.T) {
	csv, _ := visitRows(90)
	dir := written(t, map[string]string{"v.csv": csv, "v.json": visitSchema})
	d, err := (&Loader{}).Load(DataSettings{Path: dir + "/v.csv", Schema: dir + "/v.json", By: "store"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	price := func(i int) float32 { return d.Train.X[i*d.Train.Values()] } // standardised, so in the order of prices
	order := make([]int, d.Train.Len())
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		if price(a) < price(b) {
			return -1
		}
		return 1
	})
	schema, _ := data.ParseSchema([]byte(visitSchema))
	var rows []data.Row
	if err := data.ReadCSV(strings.NewReader(csv), "v.csv", schema, func(_ int, r data.Row) error { rows = append(rows, r); return nil }); err != nil {
		t.Fatal(err)
	}
	prices := []float64{}
	for _, r := range data.Split(schema, rows, 1).Train {
		prices = append(prices, r[0])
	}
	slices.Sort(prices)
	for k, i := range order {
		if got, want := d.Columns["store"][i], int32(prices[k])%3; got != want {
			t.Errorf("the visit of price %v is of store %d, want %d", prices[k], got, want)
		}
	}
	if groups := d.Columns["device"]; !slices.Contains(groups, 0) || !slices.Contains(groups, 1) || slices.Contains(groups, 2) {
		t.Errorf("devices %v, want missing ones and phones", groups)
	}
}

func TestDataRefusals(t *testing.T) {
	csv, _ := visitRows(30)
	dir := written(t, map[string]string{"v.csv": csv, "v.json": visitSchema, "bad.csv": "store,price,device,buys\n,1,phone,1\n", "notes.txt": "x"})
	part := written(t, map[string]string{"train-images-idx3-ubyte": "x", "train-labels-idx1-ubyte.gz": "x"})
	wrong := idx(40, 20, 2)
	wrong["t10k-images-idx3-ubyte"] = "PNG and so on, which is no IDX file"
	for _, c := range []struct {
		s    DataSettings
		want string
	}{
		{DataSettings{Name: "imagenet"}, `data: name "imagenet": want one of banking77, blobs, fashion-mnist`},
		{DataSettings{Name: "fashion-minst"}, `data: name "fashion-minst": did you mean fashion-mnist?`},
		{DataSettings{Name: "mnist"}, "mnist needs path: want the directory of train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-"},
		{DataSettings{Name: "mnist", Path: dir + "/no"}, "path: there is no " + dir + "/no: want the directory"},
		{DataSettings{Name: "mnist", Path: dir + "/v.csv"}, "v.csv is a file: want the directory"},
		{DataSettings{Name: "mnist", Path: part}, "has neither t10k-images-idx3-ubyte nor t10k-images-idx3-ubyte.gz: want"},
		{DataSettings{Name: "mnist", Path: written(t, wrong)}, "t10k-images-idx3-ubyte: read IDX images: the file begins with 504e4720, want 00000803"},
		{DataSettings{Name: "mnist", Path: dir, Schema: "x"}, "schema is not for mnist, but for rows"},
		{DataSettings{Name: "shoppers", Path: "x"}, "path is not for shoppers, but for banking77, fashion-mnist, "},
		{DataSettings{Alpha: 1}, "alpha is not for shoppers, but for fedprox-synthetic"},
		{DataSettings{Name: "rows"}, "rows: want path, the file of rows, and schema"},
		{DataSettings{Schema: dir + "/v.json"}, "rows: want path"},
		{DataSettings{Schema: dir + "/no.json", Path: dir + "/v.csv"}, "schema: open"},
		{DataSettings{Schema: dir + "/notes.txt", Path: dir + "/v.csv"}, "notes.txt is no JSON"},
		{DataSettings{Schema: dir + "/v.json", Path: dir + "/no.csv"}, "path: open"},
		{DataSettings{Schema: dir + "/v.json", Path: dir + "/v.csv", By: "shop"}, `v.csv:1: there is no column "shop" among store, price, device, buys`},
		{DataSettings{Schema: dir + "/v.json", Path: dir + "/bad.csv", By: "store"}, "bad.csv:2: column store, which says whose the row is, is empty"},
		{DataSettings{Schema: dir + "/v.json", Path: dir + "/bad.csv"}, "0 rows to learn from"},
		{DataSettings{Name: "fedprox-synthetic", IID: true, Beta: 1}, "both iid and alpha or beta"},
		{DataSettings{Name: "fedprox-synthetic", Alpha: -1}, "synthetic(-1, 0), want 0 to 1000"},
		{DataSettings{Name: "fedprox-synthetic", Path: dir + "/v.json"}, "unknown field"},
		{DataSettings{Name: "blobs", Classes: 1}, "classes is 1, want 2 to 1000"},
		{DataSettings{Name: "blobs", Examples: -5}, "examples is -5, want 2 to"},
		{DataSettings{Name: "shop", Examples: 5}, "5 sessions of 200 users, want 10 to"},
		{DataSettings{Name: "online-retail", Form: "pairs", Path: written(t, map[string]string{"purchases.csv": purchases(3)})}, `form "pairs", want steps or items`},
		{DataSettings{Name: "online-retail", Length: -1, Path: written(t, map[string]string{"purchases.csv": purchases(3)})}, "length is -1, want 1 to 4096"},
		{DataSettings{Name: "tinyshakespeare", Length: -1, Path: written(t, map[string]string{"input.txt": play})}, "windows of -1 characters"},
	} {
		if _, err := (&Loader{}).Load(c.s, 1); err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "data: ") {
			t.Errorf("%+v: %v, want %q", c.s, err, c.want)
		}
	}
}

// Both data sets come in files of the same names: who mixes them up is told.
func TestOtherMNIST(t *testing.T) {
	even := make([]float32, 60_000)
	for i := range even {
		even[i] = float32(i % 10)
	}
	uneven := slices.Clone(even)
	uneven[0] = 1
	for _, c := range []struct {
		name   string
		labels []float32
		want   string
	}{
		{"mnist", uneven, ""}, {"fashion-mnist", even, ""}, {"fashion-mnist", even[:500], ""}, {"mnist", even[:500], ""},
		{"mnist", even, "are those of Fashion-MNIST; want name fashion-mnist"}, {"fashion-mnist", uneven, "are not those of Fashion-MNIST"},
	} {
		err := otherMNIST(DataSettings{Name: c.name}, c.labels)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// A data set is read once, whoever asks and however many at a time; with another seed again, if that makes another one.
func TestLoaderReadsOnce(t *testing.T) {
	l, fixed := &Loader{}, DataSettings{Name: "mnist", Path: written(t, idx(40, 20, 2))}
	load := func(s DataSettings, seed uint64) *Dataset {
		d, err := l.Load(s, seed)
		if err != nil {
			t.Error(err)
		}
		return d
	}
	first, blobs := load(fixed, 1), load(DataSettings{Name: "blobs"}, 1)
	var wg sync.WaitGroup
	for seed := range uint64(4) {
		wg.Go(func() {
			if load(fixed, seed) != first {
				t.Error("the files were read again")
			}
			if again := load(DataSettings{Name: "blobs"}, 1); again != blobs {
				t.Error("blobs were made again")
			}
		})
	}
	wg.Wait()
	if other := load(DataSettings{Name: "blobs"}, 2); other == blobs || slices.Equal(other.Train.X, blobs.Train.X) {
		t.Error("another seed gave the same blobs")
	}
	for seed := range uint64(kept) {
		load(DataSettings{Name: "blobs"}, 10+seed)
	}
	if len(l.loads) != kept || load(fixed, 1) == first {
		t.Errorf("%d data sets are kept, want the last %d", len(l.loads), kept)
	}
}

// Own data that do not fit together are refused before anything is trained.
func TestOwnDataIsChecked(t *testing.T) {
	for want, change := range map[string]func(d *Dataset){
		"800 examples to learn from and 0 to test with":  func(d *Dataset) { d.Test = data.Set{Input: []int{2}, Targets: 1, Classes: 3} },
		`column "c" has 3 values for 800 examples`:       func(d *Dataset) { d.Columns = map[string][]int32{"c": {1, 2, 3}} },
		`no column "shop", which is said to be natural`:  func(d *Dataset) { d.Natural = "shop" },
		"example 0 has label 7, want 0 to 2":             func(d *Dataset) { d.Train.Y[0] = 7 },
		"nodes are to see examples in their own way, an": func(d *Dataset) { d.Tables = []int{3} },
	} {
		x := small()
		x.Partition.Kind = "noise"
		change(x.Own.Data)
		if _, err := Run(t.Context(), x, RunConfig{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// Under noise every node sees its own, the same each time, and the test set is seen as by all of them; the data set that
// others share stays as it was.
func TestNoiseIsTheNodes(t *testing.T) {
	x := small()
	x.Partition = partition.Settings{Kind: "noise", Nodes: 8, Variance: 4}
	before := slices.Clone(x.Own.Data.Test.X)
	tr, err := newTrial(x, RunConfig{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	var all []float64
	for node := range tr.parts {
		seen, y := tr.appendExamples("train", node, tr.parts[node], nil, nil)
		again, _ := tr.appendExamples("train", node, tr.parts[node], make([]float32, 3), nil)
		if !slices.Equal(seen, again[3:]) || len(y) != len(tr.parts[node]) {
			t.Errorf("node %d sees its examples otherwise the second time", node)
		}
		squares := 0.0
		for i, e := range tr.parts[node] {
			d := float64(seen[2*i] - x.Own.Data.Train.X[2*e])
			squares += d * d
		}
		all = append(all, squares/float64(len(y)))
	}
	if all[0] > 1 || all[7] < 2.5 || all[7] > 6 { // .5 and 4, of 100 examples each
		t.Errorf("variances %v, want from .5 to 4", all)
	}
	if !slices.Equal(before, x.Own.Data.Test.X) {
		t.Error("the shared test set changed")
	}
	quiet, loud := 0.0, 0.0
	for i := range before {
		d := float64(tr.data.Test.X[i] - before[i])
		switch i / 2 % 8 {
		case 0:
			quiet += d * d
		case 7:
			loud += d * d
		}
	}
	if ratio := loud / quiet; ratio < 5 || ratio > 12 { // 8
		t.Errorf("the last node's view of the test set is %v times as noisy as the first one's, want 8", ratio)
	}
}

// Who holds what can be seen without a run: here one node a device, as many examples as the data set has.
func TestPictureOfAnExperiment(t *testing.T) {
	x := Experiment{
		Name: "p", Data: DataSettings{Name: "fedprox-synthetic"}, Partition: partition.Settings{Kind: "natural"}, Architecture: model.Architecture{Name: "logistic"},
	}
	p, err := Picture(x, RunConfig{Seed: 2})
	if err != nil {
		t.Fatal(err)
	}
	d, err := (&Loader{}).Load(x.Data, 2)
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for _, n := range p.Examples {
		sum += n
	}
	if len(p.Examples) != 30 || len(p.Labels) != 30 || sum != d.Train.Len() {
		t.Errorf("%d examples on %d nodes, want %d on 30", sum, len(p.Examples), d.Train.Len())
	}
	x.Partition.Nodes = -3
	if _, err := Picture(x, RunConfig{}); err == nil || !strings.Contains(err.Error(), "experiment p: partition: -3 nodes") {
		t.Error(err)
	}
}
