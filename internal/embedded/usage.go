package embedded

// DiskUsage answers how many bytes the store's files take, those that are to be deleted included; 0 when it is closed.
func (s *Store) DiskUsage() uint64 {
	s.open.RLock()
	defer s.open.RUnlock()
	if s.closed {
		return 0
	}
	return s.db.Metrics().DiskSpaceUsage()
}
