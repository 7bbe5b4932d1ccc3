-- What the carrier says the caller's number is worth (STIR), and the number the call was diverted from.
ALTER TABLE calls ADD COLUMN verstat TEXT;
ALTER TABLE calls ADD COLUMN diversion TEXT;
