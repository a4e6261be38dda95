package node

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"choir.example/model/data"

	"go.etcd.io/bbolt"
)

// FeedbackID is the id of the import that holds all the feedback.
const FeedbackID = "feedback"

// ErrAnswered is returned for a prediction whose outcome the store has already.
var ErrAnswered = errors.New("the outcome of this prediction is known already")

// AddExample keeps the true outcome of a prediction: a row with its label, which the next round learns from. All of
// them are one import, named "feedback". The prediction's id counts once; for another outcome of it the answer is
// ErrAnswered, too.
func (s *Store) AddExample(id string, row data.Row, at time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.addExample(id, row, at); err != nil {
		return fmt.Errorf("add feedback to %s: %w", s.path, err)
	}
	return nil
}

func (s *Store) addExample(id string, row data.Row, at time.Time) error {
	if id == "" {
		return errors.New("the prediction has no id")
	}
	schema := s.Schema()
	if schema == nil {
		return errors.New("the store has no schema yet; set one first")
	}
	plain, err := schema.EncodeRow(row)
	if err != nil {
		return err
	}
	key := answerKey(id)
	if known, err := s.answered(key); err != nil || known {
		return errors.Join(err, onlyIf(known, ErrAnswered))
	}
	next, err := s.nextFeedback(schema)
	if err != nil {
		return err
	}
	next.Rows, next.Train, next.Time = next.Rows+1, next.Train+1, at.UTC()
	err = s.update(func(tx *bbolt.Tx) error {
		b, err := tx.Bucket(bucketRows).CreateBucketIfNotExists([]byte(next.ID))
		if err != nil {
			return err
		}
		n := rowKey(next.Rows)
		return errors.Join(b.Put(n, next.box.Seal(rowPlace(next.ID, next.Rows), plain)),
			tx.Bucket(bucketAnswers).Put(key, n), next.put(tx, next.box), s.putIndex(tx))
	})
	if err != nil {
		return err
	}
	s.held[next.ID] = next
	s.imports.Add(1)
	return nil
}

func onlyIf(yes bool, err error) error {
	if yes {
		return err
	}
	return nil
}

const answerBytes = 16

// answerKey stands for a prediction's id in the store.
func answerKey(id string) []byte {
	h := sha256.Sum256([]byte("choir/feedback/v1|" + id))
	return h[:answerBytes]
}

func (s *Store) answered(key []byte) (known bool, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		known = tx.Bucket(bucketAnswers).Get(key) != nil
		return nil
	})
	return known, err
}

// nextFeedback is a copy of the feedback's import, or a new one.
func (s *Store) nextFeedback(schema *data.Schema) (*heldImport, error) {
	if h := s.feedback(); h != nil {
		next := *h
		return &next, nil
	}
	digest := schema.Digest()
	h := &heldImport{record: record{
		Import: Import{ID: s.newID(), File: FeedbackID, Schema: hex.EncodeToString(digest[:])},
		Shares: Shares{Train: 100}, Order: s.order() + 1, Feedback: true,
	}}
	var err error
	h.box, err = s.keys.add(h.ID)
	return h, err
}

// feedback is the import that holds it, nil before the first. The caller holds mu.
func (s *Store) feedback() *heldImport {
	for _, h := range s.held {
		if h.Feedback {
			return h
		}
	}
	return nil
}

// forgetAnswers removes the list of predictions that were answered.
func forgetAnswers(tx *bbolt.Tx) error {
	if err := tx.DeleteBucket(bucketAnswers); err != nil {
		return err
	}
	_, err := tx.CreateBucket(bucketAnswers)
	return err
}

// countAnswers is how many predictions were answered.
func countAnswers(tx *bbolt.Tx) (n int, err error) {
	seen := map[uint64]bool{}
	err = tx.Bucket(bucketAnswers).ForEach(func(_, v []byte) error {
		if len(v) == 8 {
			seen[binary.BigEndian.Uint64(v)] = true
		}
		n++
		return nil
	})
	if err == nil && len(seen) != n {
		err = damagef("the list of answered predictions is not what it should be")
	}
	return n, err
}
