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

// Disk answers how many bytes the disk that the store is on has free for it and in all; ok is false where that cannot be told, and
// when the store is closed.
func (s *Store) Disk() (free, total int64, ok bool) {
	s.open.RLock()
	defer s.open.RUnlock()
	if s.closed || s.space.total == 0 {
		return 0, 0, false
	}
	usage, err := s.space.fs.GetDiskUsage(s.space.dir)
	if err != nil {
		return 0, 0, false
	}
	return int64(usage.AvailBytes), int64(usage.TotalBytes), true
}
