package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"

	"choir.example/model"
	"choir.example/model/data"
)

// trainSet is what is learnt from, and what it is measured with.
type trainSet struct {
	train      part
	validation part
	test       part             // without examples where nobody publishes one
	schema     *data.Schema     // of rows; nil for all else
	stats      *data.Statistics // of rows: they standardise features
	ids        bool             // inputs are ids, which want an embedding
	names      []string         // of architectures that fit these ids
	tables     []int            // how many ids there are of each kind, for these
	loss       string           // of the network: what its outputs mean
	rank       *ranks           // how a recommender's users are asked; nil: by examples like those that are learnt from
	redraw     func(epoch int)  // draws anew what a recommender is taught not to choose; nil: nothing is drawn
}

// part is examples, and for a recommender what each user has already.
type part struct {
	data.Set
	seen [][]int32
}

// divided is a published part to learn from, of which a tenth validates.
func divided(train, test data.Set, seed uint64) *trainSet {
	rest, validation := train.Divide(.1, seed)
	return &trainSet{train: part{Set: rest}, validation: part{Set: validation}, test: part{Set: test}}
}

// publicSets reads the public data sets by name.
var publicSets = map[string]func(c *trainCommand) (*trainSet, error){
	"shoppers":        (*trainCommand).shoppers,
	"fashion-mnist":   (*trainCommand).fashion,
	"banking77":       (*trainCommand).banking,
	"tinyshakespeare": (*trainCommand).shakespeare,
	"online-retail":   (*trainCommand).retail,
}

// load reads what --data says.
func (c *trainCommand) load() (*trainSet, error) {
	read, public := publicSets[c.Data]
	switch {
	case !public && c.Schema == "":
		return nil, &usageError{fmt.Sprintf("--data %s needs --schema FILE", c.Data), "it is no public data set that is known here, so it is a file of rows"}
	case !public && c.From != "" || public && c.Data == "shoppers" && c.From != "":
		return nil, &usageError{"--from is for fashion-mnist, banking77, tinyshakespeare and online-retail", ""}
	case c.Length > 0 && !slices.Contains([]string{"banking77", "tinyshakespeare", "online-retail"}, c.Data):
		return nil, &usageError{fmt.Sprintf("--length is not for %s, whose examples have the length they have", c.Data), ""}
	case public && c.Schema != "":
		return nil, &usageError{"--schema is for a file of rows", ""}
	case public && c.Format != "":
		return nil, &usageError{"--format is for a file of rows", ""}
	case public && c.Data != "shoppers" && c.From == "":
		return nil, &usageError{fmt.Sprintf("--data %s needs --from DIR", c.Data), "DIR holds the published files; choir does not download them"}
	case !public:
		read = (*trainCommand).rows
	}
	set, err := read(c)
	if err != nil {
		return nil, missing("data", err)
	}
	if set.train.Len() == 0 || set.validation.Len() == 0 {
		return nil, fmt.Errorf("%s: %d examples to learn from and %d to validate with are too few", c.Data, set.train.Len(), set.validation.Len())
	}
	return set, nil
}

// length is --length, or what it is without.
func (c *trainCommand) length(usual int) int {
	if c.Length > 0 {
		return c.Length
	}
	return usual
}

func (c *trainCommand) fashion() (*trainSet, error) {
	train, test, err := data.FashionMNIST(c.From)
	return divided(train, test, c.Seed), err
}

// textBuckets are so many that two of the n-grams of ten thousand short texts seldom share one.
const textBuckets = 1 << 16

func (c *trainCommand) banking() (*trainSet, error) {
	train, test, _, err := data.BANKING77(c.From, data.Tokeniser{Buckets: textBuckets, Words: 2, Characters: 4}, c.length(192))
	set := divided(train, test, c.Seed)
	set.ids, set.names, set.tables = true, []string{"text"}, []int{textBuckets + 1}
	return set, err
}

func (c *trainCommand) shakespeare() (*trainSet, error) {
	train, validation, _, err := data.TinyShakespeare(c.From, c.length(64))
	return &trainSet{train: part{Set: train}, validation: part{Set: validation}, ids: true, names: []string{"rnn", "lstm"}}, err
}

func (c *trainCommand) shoppers() (*trainSet, error) {
	schema, rows, _, err := data.Shoppers()
	if err != nil {
		return nil, err
	}
	return c.tabular(schema, rows)
}

// rows reads a file of rows.
func (c *trainCommand) rows() (*trainSet, error) {
	schema, err := readSchema(c.Schema)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(c.Data)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	format := cmp.Or(data.Format(c.Format), formatOf(c.Data))
	var rows []data.Row
	if _, err := format.Read(f, c.Data, schema, data.CSV{}, func(_ int, row data.Row) error {
		rows = append(rows, row)
		return nil
	}); err != nil {
		return nil, err
	}
	return c.tabular(schema, rows)
}

func (c *trainCommand) tabular(schema *data.Schema, rows []data.Row) (*trainSet, error) {
	train, validation, test, stats, err := data.Tabular(schema, rows, c.Seed)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Data, err)
	}
	set := &trainSet{train: part{Set: train}, validation: part{Set: validation}, test: part{Set: test}, schema: schema, stats: stats}
	set.names, set.tables, set.ids = idColumns(schema)
	return set, nil
}

// idColumns reports whether rows have columns of ids, and which architectures read them if they have no others: text a
// text, recommend-mlp a user and an item.
func idColumns(schema *data.Schema) (names []string, tables []int, found bool) {
	var kinds string
	for i := range schema.Columns {
		c := &schema.Columns[i]
		if c.Name == schema.Label || c.Kind == data.Time {
			continue
		}
		kinds += string(c.Kind) + " "
	}
	tables = schema.Tables()
	switch kinds {
	case "text ":
		names = []string{"text"}
	case "id id ":
		names = []string{"recommend-mlp"}
	}
	return names, tables, len(tables) > 0
}

// network compiles the architecture, and holds it against the data.
func (c *trainCommand) network(set *trainSet) (*model.Network, error) {
	spec, err := c.spec(set)
	if err != nil {
		return nil, err
	}
	network, err := spec.Compile()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Model, err)
	}
	s := &set.train
	if !slices.Equal(spec.Input, s.Input) {
		return nil, &hinted{fmt.Errorf("%s reads %v, and an example of %s is %v", c.Model, spec.Input, c.Data, s.Input), "correct input in the architecture"}
	}
	if want := max(s.Targets, 1) * s.Classes; network.Outputs() != want || network.Targets() != s.Targets {
		return nil, &hinted{fmt.Errorf("%s has %d outputs for %d targets an example; %s has %d targets, each of %d classes",
			c.Model, network.Outputs(), network.Targets(), c.Data, s.Targets, s.Classes), fmt.Sprintf("the last layer wants %d outputs in all", want)}
	}
	set.loss = spec.Loss
	return network, set.rank.compile(spec, network)
}

// spec is the architecture that --model names.
func (c *trainCommand) spec(set *trainSet) (model.Spec, error) {
	if !known(c.Model) {
		return architectureFlags{Spec: c.Model}.spec()
	}
	switch {
	case set.ids && !readsIDs(c.Model):
		return model.Spec{}, &usageError{fmt.Sprintf("--model %s does not learn from ids, which is what %s has", c.Model, c.Data), set.fitting()}
	case !set.ids && readsIDs(c.Model):
		return model.Spec{}, &usageError{fmt.Sprintf("--model %s learns from ids, and %s has none", c.Model, c.Data), "give a name such as mlp, or a .yaml file"}
	case set.ids && !slices.Contains(set.names, c.Model):
		return model.Spec{}, &usageError{fmt.Sprintf("--model %s does not learn from ids such as those of %s", c.Model, c.Data), set.fitting()}
	}
	spec, err := model.Named(c.Model, set.train.Input, set.train.Classes, set.tables...)
	if c.Model == "recommend-lstm" && err == nil {
		spec.Loss = "softmax" // which of all products comes next; its usual loss is for each of several answers by itself
	}
	return spec, err
}

// fitting tells which architectures there are for ids.
func (s *trainSet) fitting() string {
	return strings.Join(append([]string{"give a .yaml file with an embedding"}, s.names...), ", or ")
}

// readsIDs reports whether an architecture with a name begins with an embedding.
func readsIDs(name string) bool {
	return slices.Contains([]string{"rnn", "lstm", "text", "recommend-mlp", "recommend-lstm", "matrix-factorisation"}, name)
}

// encode is the model as a file.
func (s *trainSet) encode(network *model.Network, params []float32) ([]byte, error) {
	if s.schema == nil || network.Outputs() != 1 {
		return model.EncodeNetwork(network, params)
	}
	m := model.Model{Name: s.schema.Name, Variant: "float32", Network: network, Schema: s.schema, Statistics: s.stats, Params: params}
	return m.Encode()
}

// metric is one of the figures of a part.
type metric struct {
	name  string
	value float64
}

// measured are the figures of a part, in the order of the table.
type measured []metric

// MarshalJSON is an object by name.
func (m measured) MarshalJSON() ([]byte, error) {
	object := map[string]float64{}
	for _, x := range m {
		object[x.name] = x.value
	}
	return json.Marshal(object)
}

// measure computes the figures of a part: those of a ranking for what users may get next, and otherwise of classes, or
// of numbers under a squared error; losses and calibration only where outputs are logits.
func (s *trainSet) measure(p *model.Predictor, of *part) (measured, error) {
	if of.seen != nil {
		return s.ranking(p, of)
	}
	outputs, classes, y := make([]float32, len(of.Y)*of.Classes), of.Classes, of.Y
	p.Predict(of.X, outputs)
	logits := s.loss == "logistic" || s.loss == "softmax"
	var out measured
	for _, f := range []struct {
		name string
		fits bool
		of   func() (float64, error)
	}{
		{"accuracy", s.loss != "squared", func() (float64, error) { return model.Accuracy(outputs, classes, y) }},
		{"f1", s.loss != "squared", func() (float64, error) { return model.F1(outputs, classes, y) }},
		{"auc", classes == 1, func() (float64, error) { return model.AUC(outputs, y) }},
		{"average_precision", classes == 1, func() (float64, error) { return model.AveragePrecision(outputs, y) }},
		{"rmse", s.loss == "squared", func() (float64, error) { return model.RMSE(outputs, y) }},
		{"mae", s.loss == "squared", func() (float64, error) { return model.MAE(outputs, y) }},
		{"log_loss", logits, func() (float64, error) { return model.LogLoss(outputs, classes, y) }},
		{"perplexity", s.loss == "softmax", func() (float64, error) { return model.Perplexity(outputs, classes, y) }},
		{"calibration_error", logits, func() (float64, error) { return model.CalibrationError(outputs, classes, y, 15) }},
	} {
		if !f.fits {
			continue
		}
		value, err := f.of()
		if errors.Is(err, model.ErrOneClass) || math.IsInf(value, 0) {
			continue // a small part may lack positives, and a perplexity have no bound
		}
		if err != nil {
			return nil, err
		}
		out = append(out, metric{f.name, value})
	}
	return out, nil
}
